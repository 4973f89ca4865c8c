"""NPZ and NPY: arrays, their headers, and the zip around them."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import numpy as np

from .generic import GENERIC, Bomb, Mutation


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
        lambda a: np.array([Bomb()], dtype=object),
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
