"""Pictures: kinds, modes, sizes, claims."""

from __future__ import annotations

import io
import struct
from random import Random

import numpy as np

from .generic import Mutation


def picture_saved(content: bytes, random: Random) -> bytes:
    """The picture in another kind, mode or size."""
    from PIL import Image

    picture = Image.open(io.BytesIO(content)).convert("L")
    mode = random.choice(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "I;16", "YCbCr"])
    changed = picture.convert(mode) if mode != "I;16" else Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    if random.random() < 0.3:
        changed = changed.resize(random.choice([(1, 1), (3, 400), (picture.width + 1, picture.height)]), 0)
    if random.random() < 0.2:
        changed = changed.rotate(90, expand=True)
    held = io.BytesIO()
    for kind in random.sample(["PNG", "JPEG", "TIFF", "BMP", "GIF"], 5):
        try:
            held = io.BytesIO()
            changed.save(held, kind)
            return held.getvalue()
        except (OSError, ValueError):
            continue
    return content


def picture_claim(content: bytes, random: Random) -> bytes:
    """A PNG whose header claims another size, depth or colour, with a right checksum."""
    from zlib import crc32

    if content[:4] != b"\x89PNG":
        return picture_saved(content, random)
    changed = bytearray(content)
    width, height = random.choice([(0, 10), (100_000, 100_000), (1, 1), (2**31 - 1, 2**31 - 1), (10, 4000)])
    if random.random() < 0.6:
        struct.pack_into(">II", changed, 16, width, height)
    else:
        changed[24], changed[25] = random.choice([(1, 0), (16, 0), (3, 0), (8, 2), (8, 3), (8, 6), (8, 99)])
    struct.pack_into(">I", changed, 29, crc32(bytes(changed[12:29])))
    return bytes(changed)


def picture_of_pages(content: bytes, random: Random) -> bytes:
    from PIL import Image

    picture = Image.open(io.BytesIO(content)).convert("L")
    held = io.BytesIO()
    picture.save(held, random.choice(["TIFF", "GIF", "PNG"]), save_all=True, append_images=[picture.rotate(180)])
    return held.getvalue()


def picture_values(content: bytes, random: Random) -> bytes:
    from PIL import Image

    array = np.asarray(Image.open(io.BytesIO(content)).convert("L")).copy()
    array.flat[random.randrange(array.size)] = random.choice([3, 127, 255])
    held = io.BytesIO()
    Image.fromarray(array).save(held, "PNG")
    return held.getvalue()


def picture_turned(content: bytes, random: Random) -> bytes:
    from PIL import Image

    picture = Image.open(io.BytesIO(content)).convert("L")
    exif = Image.Exif()
    exif[274] = random.randint(2, 8)
    held = io.BytesIO()
    picture.save(held, random.choice(["PNG", "JPEG", "TIFF"]), exif=exif)
    return held.getvalue()


PICTURE: tuple[Mutation, ...] = (
    picture_saved, picture_saved, picture_saved, picture_claim, picture_claim, picture_of_pages, picture_values,
    picture_turned,
)  # fmt: skip
