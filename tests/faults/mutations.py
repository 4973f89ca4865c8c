"""Damage and lies, by kind of file: the corpus, as generators. Each takes a good file's bytes and a random source."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from copy import deepcopy
from random import Random
from typing import Any

import numpy as np

__all__ = ["CANARY", "GENERIC", "Mutation", "mutations_of"]

Mutation = Callable[[bytes, Random], bytes]

CANARY = "/tmp/monai_calib_canary"
"""What a pickle bomb would make if it were run."""


class _Bomb:
    def __reduce__(self) -> Any:
        return os.system, (f"touch {CANARY}",)


def truncated(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def cut_at_the_end(content: bytes, random: Random) -> bytes:
    return content[: -random.randint(1, 9)]


def emptied(content: bytes, random: Random) -> bytes:
    return b""


def random_bytes(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randint(1, 15)):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def random_bytes_at_the_start(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randint(1, 15)):
        changed[random.randrange(min(400, len(changed)))] = random.randrange(256)
    return bytes(changed)


def inserted(content: bytes, random: Random) -> bytes:
    place = random.randrange(len(content))
    return content[:place] + random.randbytes(random.randint(1, 64)) + content[place:]


def zeros(content: bytes, random: Random) -> bytes:
    return bytes(len(content))


def zeros_at_the_end(content: bytes, random: Random) -> bytes:
    kept = random.randrange(len(content))
    return content[:kept] + bytes(len(content) - kept)


def noise(content: bytes, random: Random) -> bytes:
    return random.randbytes(random.randint(1, 2000))


def a_text(content: bytes, random: Random) -> bytes:
    return "see the mail of Änne\n".encode(random.choice(["utf-8", "latin-1", "utf-16"]))


def a_page(content: bytes, random: Random) -> bytes:
    return b"<!DOCTYPE html><html><head><title>403 Forbidden</title></head></html>"


def a_pickle(content: bytes, random: Random) -> bytes:
    return pickle.dumps(_Bomb())


def a_large_pointer(content: bytes, random: Random) -> bytes:
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


GENERIC: tuple[Mutation, ...] = (
    truncated,
    cut_at_the_end,
    emptied,
    random_bytes,
    random_bytes_at_the_start,
    inserted,
    zeros,
    zeros_at_the_end,
    noise,
    a_text,
    a_page,
    a_pickle,
    a_large_pointer,
)

# NIfTI -------------------------------------------------------------------------------------------------------------
_FIELDS = {  # offset and format of header fields, and what is put there
    "sizeof_hdr": (0, "i", (0, 540, -1)),
    "dim0": (40, "h", (0, -1, 1, 2, 4, 7, 8, 1000)),
    "dim1": (42, "h", (0, -1, 1, 32767, 3)),
    "dim2": (44, "h", (0, -1, 32767)),
    "dim3": (46, "h", (0, -1, 32767, 1)),
    "dim4": (48, "h", (0, 2, 32767)),
    "datatype": (70, "h", (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1536, 1792, 2304, 9999)),
    "bitpix": (72, "h", (0, 1, 8, 16, 64, -8)),
    "pixdim0": (76, "f", (0.0, float("nan"), 7.0)),
    "pixdim1": (80, "f", (0.0, -1.0, float("nan"), float("inf"), 1e-30, 1e30)),
    "pixdim3": (88, "f", (0.0, -1.0, float("nan"), float("inf"), 1e-30, 50.0)),
    "vox_offset": (108, "f", (0.0, -352.0, 1e9, float("nan"), 400.0)),
    "slope": (112, "f", (0.0, float("nan"), float("inf"), -1.0, 1e30)),
    "inter": (116, "f", (float("nan"), float("inf"), 1e30)),
    "qform_code": (252, "h", (0, -1, 99)),
    "sform_code": (254, "h", (0, -1, 99)),
    "quatern_b": (256, "f", (5.0, float("nan"))),
    "qoffset_x": (268, "f", (float("nan"), 1e30, 50.0)),
    "srow_x": (280, "f", (0.0, float("nan"), float("inf"), -1.0)),
    "srow_offset": (292, "f", (float("nan"), 50.0)),
    "magic": (344, "4s", (b"n+2\0", b"ni1\0", b"abcd", b"\0\0\0\0")),
}


def _inner(content: bytes) -> tuple[bytes, bool]:
    return (gzip.decompress(content), True) if content[:2] == b"\x1f\x8b" else (content, False)


def _outer(content: bytes, packed: bool) -> bytes:
    return gzip.compress(content, 1) if packed else content


def nifti_field(content: bytes, random: Random) -> bytes:
    inner, packed = _inner(content)
    changed = bytearray(inner)
    for _ in range(random.choice((1, 1, 2))):
        place, kind, values = _FIELDS[random.choice(sorted(_FIELDS))]
        struct.pack_into("<" + kind, changed, place, random.choice(values))
    return _outer(bytes(changed), packed)


def nifti_inside(content: bytes, random: Random) -> bytes:
    """Damage below a gzip layer that is itself right."""
    inner, packed = _inner(content)
    return _outer(random.choice(GENERIC[:8])(inner, random), packed)


def nifti_swapped(content: bytes, random: Random) -> bytes:
    inner, packed = _inner(content)
    return _outer(inner[:348][::-1] + inner[348:], packed)


def nifti_values(content: bytes, random: Random) -> bytes:
    import nibabel as nib

    inner, packed = _inner(content)
    volume = nib.Nifti1Image.from_bytes(inner)
    array = np.asarray(volume.dataobj).astype(np.float32)
    chosen = random.choice([np.nan, np.inf, -1.0, 0.9999, 255.0, 3e38, 7.0])
    array.flat[random.randrange(array.size)] = chosen
    kinds: list[Any] = [np.float32, np.float64] if not np.isfinite(chosen) else [np.float32, np.float64, np.int16]
    if random.random() < 0.2:
        kinds = [np.complex64, np.float32]
    with np.errstate(invalid="ignore"):
        array = array.astype(random.choice(kinds))
    return _outer(nib.Nifti1Image(array, volume.affine).to_bytes(), packed)


def nifti_shape(content: bytes, random: Random) -> bytes:
    import nibabel as nib

    inner, packed = _inner(content)
    volume = nib.Nifti1Image.from_bytes(inner)
    array = np.asarray(volume.dataobj)
    changes: list[Callable[[Any], Any]] = [
        lambda a: a[1:],
        lambda a: a[..., None],
        lambda a: a[:, :, 0],
        lambda a: np.stack([a, a], -1),
        lambda a: a[:0],
        lambda a: a.ravel(),
        lambda a: a[::-1].swapaxes(0, 1),
        lambda a: np.zeros(a.shape[:3], [("R", "u1"), ("G", "u1"), ("B", "u1")]),
    ]
    return _outer(
        nib.Nifti1Image(np.ascontiguousarray(random.choice(changes)(array)), volume.affine).to_bytes(), packed
    )


def nifti_place(content: bytes, random: Random) -> bytes:
    import nibabel as nib

    inner, packed = _inner(content)
    volume = nib.Nifti1Image.from_bytes(inner)
    affine = volume.affine.copy()
    changes = [(0, 3, 50.0), (1, 1, -affine[1, 1]), (2, 2, 7.0), (0, 0, 1e-9), (0, 3, 1e30)]
    row, column, value = random.choice(changes)
    affine[row, column] = value
    return _outer(nib.Nifti1Image(np.asarray(volume.dataobj), affine).to_bytes(), packed)


def gzip_checksum(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    changed[-random.randint(1, 8)] ^= 1 << random.randrange(8)
    return bytes(changed)


def gzip_bomb(content: bytes, random: Random) -> bytes:
    inner, _ = _inner(content)
    return gzip.compress(inner[:352] + bytes(30_000_000), 1)


def not_packed(content: bytes, random: Random) -> bytes:
    return _inner(content)[0]


NIFTI: tuple[Mutation, ...] = (
    nifti_field,
    nifti_field,
    nifti_field,
    nifti_inside,
    nifti_swapped,
    nifti_values,
    nifti_values,
    nifti_shape,
    nifti_place,
    gzip_checksum,
    gzip_bomb,
    not_packed,
)

# JSON --------------------------------------------------------------------------------------------------------------
_NASTY: tuple[Any, ...] = (
    None, [], {}, -1, 0, 1, 1.5, 2**70, -(2**70), 10**9, "", "a", "x" * 5000, True, False, [None], {"a": 1},
    "../../etc/passwd", "/etc/passwd", "\ud800", "nan", "\r=1+1", "<script>", float("nan"), float("inf"), [[[]]], "é\0",
)  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key in value:
            found += _places(value[key], (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value[:30]):
            found += _places(item, (*path, number))
    return found


def _changed(value: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> None:
    for key in path[:-1]:
        value = value[key]
    change(value, path[-1])


def _shallow_first(value: Any, random: Random) -> tuple[Any, ...]:
    """A place, as often near the root as deep down, where most of them are."""
    places = _places(value)
    depth = random.randint(1, max(map(len, places)))
    return random.choice([place for place in places if len(place) <= depth])


def json_value(content: bytes, random: Random) -> bytes:
    value = json.loads(content)
    new = random.choice(_NASTY)
    _changed(value, _shallow_first(value, random), lambda holder, key: holder.__setitem__(key, deepcopy(new)))
    return json.dumps(value).encode()


def json_without(content: bytes, random: Random) -> bytes:
    value = json.loads(content)
    _changed(value, _shallow_first(value, random), lambda holder, key: holder.pop(key))
    return json.dumps(value).encode()


def json_twice(content: bytes, random: Random) -> bytes:
    value = json.loads(content)

    def double(holder: Any, key: Any) -> None:
        if isinstance(holder, list):
            holder.append(deepcopy(holder[key]))
        else:
            holder[str(key) + "2"] = deepcopy(holder[key])

    _changed(value, _shallow_first(value, random), double)
    return json.dumps(value).encode()


def json_other(content: bytes, random: Random) -> bytes:
    return json.dumps(random.choice(_NASTY)).encode()


def json_deep(content: bytes, random: Random) -> bytes:
    opened = random.choice([b"[", b'{"a":'])
    return opened * 100_000


def json_deep_inside(content: bytes, random: Random) -> bytes:
    depth = random.choice([500, 5000, 100_000])
    return content.rstrip()[:-1] + b', "deep": ' + b"[" * depth + b"]" * depth + b"}"


def json_marked(content: bytes, random: Random) -> bytes:
    return b"\xef\xbb\xbf" + content


def json_latin(content: bytes, random: Random) -> bytes:
    return content.replace(b'"', '"ä'.encode("latin-1"), 2)


JSON: tuple[Mutation, ...] = (
    json_value, json_value, json_value, json_value, json_value, json_without, json_without, json_without, json_twice,
    json_other, json_deep, json_deep_inside, json_marked, json_latin,
)  # fmt: skip


# NPZ and NPY -------------------------------------------------------------------------------------------------------
def _arrays(content: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def _packed(arrays: Mapping[str, Any]) -> bytes:
    held = io.BytesIO()
    np.savez_compressed(held, **arrays)
    return held.getvalue()


def npz_array(content: bytes, random: Random) -> bytes:
    arrays = _arrays(content)
    name = random.choice(sorted(arrays))
    array = arrays[name]
    changes: list[Callable[[Any], Any]] = [
        lambda a: a[:0],
        lambda a: a.astype(str),
        lambda a: np.full(a.shape, np.nan),
        lambda a: np.full(a.shape, np.inf),
        lambda a: np.full(a.shape, -1.0),
        lambda a: np.full(a.shape, 2.0),
        lambda a: np.array(5),
        lambda a: a[..., None],
        lambda a: a.ravel()[:-1],
        lambda a: a.astype(np.complex64),
        lambda a: np.array([_Bomb()], dtype=object),
        lambda a: a.astype(bool),
        lambda a: np.zeros(a.shape, [("a", "i4")]),
        lambda a: a.ravel(),
    ]
    usable = changes if array.dtype.kind in "biufc" and array.ndim else [changes[6], changes[10]]
    try:
        arrays[name] = random.choice(usable)(array)
    except (TypeError, ValueError, IndexError):
        arrays[name] = np.array(5)
    return _packed(arrays)


def npz_without(content: bytes, random: Random) -> bytes:
    arrays = _arrays(content)
    arrays.pop(random.choice(sorted(arrays)))
    return _packed(arrays)


def npz_claim(content: bytes, random: Random) -> bytes:
    """An array whose header claims far more than is there."""
    held = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as new:
        names = old.namelist()
        chosen = random.choice(names)
        for name in names:
            data = old.read(name)
            if name == chosen:
                header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (9999999, 99999), }"
                header = header.ljust(117) + b"\n"
                data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 64
            new.writestr(name, data)
    return held.getvalue()


def npz_bomb(content: bytes, random: Random) -> bytes:
    arrays = _arrays(content)
    arrays[random.choice(sorted(arrays))] = np.zeros(20_000_000, np.float32)
    return _packed(arrays)


def npz_member(content: bytes, random: Random) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(held, "w") as new:
        names = old.namelist()
        chosen = random.choice(names)
        for name in names:
            data = old.read(name)
            new.writestr(name, random.choice(GENERIC[:9])(data, random) if name == chosen else data)
    return held.getvalue()


NPZ: tuple[Mutation, ...] = (npz_array, npz_array, npz_array, npz_array, npz_without, npz_claim, npz_bomb, npz_member)


# Checkpoints -------------------------------------------------------------------------------------------------------
def _saved(value: Any) -> bytes:
    import torch

    held = io.BytesIO()
    torch.save(value, held)
    return held.getvalue()


def checkpoint_value(content: bytes, random: Random) -> bytes:
    import torch

    value = torch.load(io.BytesIO(content), weights_only=True)
    holder = value
    while isinstance(holder, dict) and holder and random.random() < 0.6:
        inner = [item for item in holder.values() if isinstance(item, dict) and item]
        if not inner:
            break
        holder = random.choice(inner)
    key = random.choice(list(holder))
    nasty = [None, 5, "a", [], {}, torch.zeros(3), torch.zeros(0), [1, 2], 2**70, torch.zeros(2, 2, dtype=torch.int8)]
    holder[key] = random.choice(nasty)
    return _saved(value)


def checkpoint_without(content: bytes, random: Random) -> bytes:
    import torch

    value = torch.load(io.BytesIO(content), weights_only=True)
    value.pop(random.choice(list(value)))
    return _saved(value)


def checkpoint_of_another(content: bytes, random: Random) -> bytes:
    import torch

    layer = random.choice([torch.nn.Linear(2, 2), torch.nn.Conv3d(1, 4, 3), torch.nn.BatchNorm1d(3)])
    return _saved(random.choice([layer.state_dict(), {"model": layer.state_dict()}, list(layer.parameters())]))


def checkpoint_bomb(content: bytes, random: Random) -> bytes:
    return _saved(random.choice([_Bomb(), {"model": _Bomb()}, [_Bomb()]]))


def checkpoint_inside(content: bytes, random: Random) -> bytes:
    return npz_member(content, random)


CHECKPOINT: tuple[Mutation, ...] = (
    checkpoint_value, checkpoint_value, checkpoint_value, checkpoint_without, checkpoint_of_another, checkpoint_bomb,
    checkpoint_inside, checkpoint_inside,
)  # fmt: skip


# Archives ----------------------------------------------------------------------------------------------------------
def _members(content: bytes) -> list[tuple[str, bytes]]:
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            return [(name, packed.read(name)) for name in packed.namelist() if not name.endswith("/")]
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar if member.isfile()]  # type: ignore[union-attr]


_WAYS_OUT = ("../outside", "/tmp/monai_calib_outside", "a/../../outside", "..\\outside", "C:\\outside", "a/./../../x")


def archive_of(content: bytes, random: Random) -> bytes:
    """A tar archive in which one member is what no download should hold."""
    held = io.BytesIO()
    members = _members(content)
    kind = random.choice(
        ("out", "symlink", "link", "device", "fifo", "twice", "sparse", "bomb", "long", "folder", "pax")
    )
    with tarfile.open(fileobj=held, mode="w:gz", compresslevel=1) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        name = members[random.randrange(len(members))][0]
        info = tarfile.TarInfo({"out": random.choice(_WAYS_OUT), "long": "a" * 5000}.get(kind, f"{name}.more"))
        if kind in ("symlink", "link"):
            info.type = tarfile.SYMTYPE if kind == "symlink" else tarfile.LNKTYPE
            info.linkname = random.choice(["/etc/passwd", "../../outside", name])
        elif kind in ("device", "fifo"):
            info.type = tarfile.CHRTYPE if kind == "device" else tarfile.FIFOTYPE
        elif kind in ("twice", "folder"):
            info.name = name
            info.type = tarfile.REGTYPE if kind == "twice" else tarfile.DIRTYPE
        elif kind == "bomb":
            info.size = 80_000_000
        elif kind == "pax":
            info.pax_headers = {"path": random.choice(_WAYS_OUT), "size": "99999999999"}
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    return held.getvalue()


def zip_of(content: bytes, random: Random) -> bytes:
    held = io.BytesIO()
    members = _members(content)
    kind = random.choice(("out", "link", "twice", "bomb", "encrypted", "claim", "long"))
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for name, data in members:
            packed.writestr(name, data)
        name = members[0][0]
        info = zipfile.ZipInfo(
            {"out": random.choice(_WAYS_OUT), "twice": name, "long": "a" * 300}.get(kind, f"{name}.m")
        )
        info.compress_type = zipfile.ZIP_DEFLATED
        if kind == "link":
            info.external_attr = 0o120777 << 16
        packed.writestr(info, bytes(80_000_000) if kind == "bomb" else b"/etc/passwd")
    changed = bytearray(held.getvalue())
    if kind in ("encrypted", "claim"):
        place = changed.rindex(b"PK\x01\x02")
        if kind == "encrypted":
            changed[place + 8] |= 1
        else:
            struct.pack_into("<I", changed, place + 24, 2**31)
    return bytes(changed)


ARCHIVE: tuple[Mutation, ...] = (archive_of, archive_of, archive_of, zip_of, zip_of)


# Pictures ----------------------------------------------------------------------------------------------------------
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

# DICOM -------------------------------------------------------------------------------------------------------------
_DICOM_VALUES: dict[str, tuple[Any, ...]] = {
    "Rows": (0, 1, 65535),
    "Columns": (0, 1, 65535),
    "BitsAllocated": (0, 1, 8, 12, 32, 64),
    "BitsStored": (0, 8, 99),
    "HighBit": (0, 7, 99),
    "PixelRepresentation": (0, 2),
    "SamplesPerPixel": (0, 2, 3),
    "PhotometricInterpretation": ("MONOCHROME1", "RGB", "PALETTE COLOR", ""),
    "PixelSpacing": (["1"], ["-1", "1"], ["1e-9", "1e-9"], ["0", "0"], ["1", "1", "1"], None, ["50", "1"]),
    "SliceThickness": ("0", "-1", None),
    "RescaleSlope": ("0", "-1", None, "1e30"),
    "RescaleIntercept": (None, "1e30"),
    "ImagePositionPatient": (["0", "0", "0"], ["0", "0"], None, ["1e30", "0", "0"], ["5", "6", "1000"]),
    "ImageOrientationPatient": (["0"] * 6, ["1", "0", "0"], None, ["1", "0", "0", "1", "0", "0"], ["1"] * 6),
    "InstanceNumber": (0, -1, None, 999, 3),
    "SeriesInstanceUID": ("1.2.3", "", None),
    "SOPInstanceUID": ("1.2.3", None),
    "SOPClassUID": ("1.2.840.10008.5.1.4.1.1.481.3", None),
    "FrameOfReferenceUID": ("1.2.3", None),
    "Modality": ("CT", "SEG", None),
    "NumberOfFrames": (0, 2, 99),
    "PixelData": (b"", b"\0" * 10, None),
    "WindowCenter": ("abc",),
}


def dicom_value(content: bytes, random: Random) -> bytes:
    from pydicom import config, dcmread

    image = dcmread(io.BytesIO(content))
    config.settings.writing_validation_mode = config.IGNORE
    keyword = random.choice(sorted(_DICOM_VALUES))
    value = random.choice(_DICOM_VALUES[keyword])
    if keyword in image:
        del image[keyword]
    held = io.BytesIO()
    try:
        if value is not None:
            setattr(image, keyword, value)
        image.save_as(held)
    except Exception:  # pydicom refuses to write some lies
        return random_bytes_at_the_start(content, random)
    return held.getvalue()


def dicom_text(content: bytes, random: Random) -> bytes:
    """A number that is none, of the length that was there."""
    tags = {b"\x28\x00\x53\x10DS": 0, b"\x28\x00\x30\x00DS": 0, b"\x20\x00\x32\x00DS": 0, b"\x20\x00\x37\x00DS": 0}
    there = [tag for tag in tags if tag in content]
    if not there:
        return random_bytes(content, random)
    start = content.index(random.choice(there)) + 6
    length = int.from_bytes(content[start : start + 2], "little")
    text = random.choice([b"abc", b"nan", b"inf", b"1\\2", b"\\\\", b"1e999", b"\xff\xfe"])[:length].ljust(length)
    return content[: start + 2] + text + content[start + 2 + length :]


def dicom_length(content: bytes, random: Random) -> bytes:
    place = content.index(b"\xe0\x7f\x10\x00")
    changed = bytearray(content)
    struct.pack_into("<I", changed, place + 8, random.choice([0, 1, 2**31, 2**32 - 1, 10]))
    return bytes(changed)


def dicom_syntax(content: bytes, random: Random) -> bytes:
    old = b"1.2.840.10008.1.2.1\0"
    new = random.choice(
        [b"1.2.840.10008.1.2\0\0\0", b"1.2.840.10008.1.2.2\0", b"1.2.840.10008.1.2.5\0", b"9.9.999.9999999999\0\0"]
    )
    return content.replace(old, new, 1)


def dicom_header(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    end = content.index(b"\xe0\x7f\x10\x00")
    for _ in range(random.randint(1, 15)):
        changed[random.randrange(end)] = random.randrange(256)
    return bytes(changed)


DICOM: tuple[Mutation, ...] = (
    dicom_value, dicom_value, dicom_value, dicom_value, dicom_text, dicom_text, dicom_length, dicom_syntax,
    dicom_header, dicom_header,
)  # fmt: skip


# Tables ------------------------------------------------------------------------------------------------------------
def table_cell(content: bytes, random: Random) -> bytes:
    rows = [line.split(",") for line in content.decode().splitlines()]
    row = random.choice(rows)
    cells = ["", "\r=1+1", "a" * 140_000, "\0", '"', "../x", "/etc/passwd", "\ud7ff", "nan", "=1+1", '"a\nb"', "é"]
    row[random.randrange(len(row))] = random.choice(cells)
    return "\n".join(",".join(line) for line in rows).encode()


def table_shape(content: bytes, random: Random) -> bytes:
    lines = content.decode().splitlines()
    changes: list[Callable[[], list[str]]] = [
        lambda: lines[1:],
        lambda: [lines[0], *lines],
        lambda: lines + lines[-1:],
        lambda: [line.rpartition(",")[0] for line in lines],
        lambda: [line.replace(",", ";") for line in lines],
        lambda: lines[:1],
        lambda: [*lines, ",,,,,,,,"],
        lambda: ["," + line for line in lines],
    ]
    return "\n".join(random.choice(changes)()).encode(random.choice(["utf-8", "utf-16", "utf-8-sig"]))


TABLE: tuple[Mutation, ...] = (table_cell, table_cell, table_cell, table_shape, table_shape)

BY_KIND: dict[str, tuple[Mutation, ...]] = {
    "NIfTI": NIFTI,
    "DICOM": DICOM,
    "JSON": JSON,
    "NPZ": NPZ,
    "checkpoint": CHECKPOINT,
    "archive": ARCHIVE,
    "picture": PICTURE,
    "table": TABLE,
}


def mutations_of(kind: str) -> tuple[Mutation, ...]:
    """What is done to a file of a kind; generic damage is a third of it."""
    return (*BY_KIND[kind], *BY_KIND[kind], *GENERIC)
