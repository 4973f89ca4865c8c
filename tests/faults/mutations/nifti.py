"""NIfTI: headers that lie, types, bombs, gzip."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

from .generic import GENERIC, Mutation

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
