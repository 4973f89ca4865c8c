"""A histogram's sums as JSON, without loss, in few bytes and little time: an evaluation writes several a case."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_calib.compiled import jit
from monai_calib.metrics.bins import fine_edges
from monai_calib.metrics.serial import array_from_json, array_to_json
from monai_calib.metrics.sums import FIXED_POINT, Sums

__all__ = ["pack_integers", "sums_from_json", "sums_to_json", "unpack_integers"]

_SEVEN, _SEVEN_BITS, _GOES_ON = np.uint64(7), np.uint64(127), np.uint8(128)
_LONGEST = 10  # bytes of a number of 64 bits


def sums_to_json(sums: Sums, num_bins: int) -> dict[str, Any]:
    """A plain mapping that :func:`sums_from_json` turns back into the same sums, bit by bit.

    Confidences, the bulk of it, are what each filled bin holds above its voxels' number times its lower edge: a whole
    multiple of 2^-30, small where the voxels are few. Sums so large that they were rounded stay floating point numbers.
    """
    count, hits, confidence = (value.cpu().numpy() for value in (sums.count, sums.hits, sums.confidence))
    packed: dict[str, Any] = {"counts": _text(zlib.compress(pack_integers(np.stack([count, hits])), 1))}
    packed["scores"], packed["problems"] = array_to_json(sums.scores.cpu().numpy()), sums.problems.tolist()
    edges = count * _lower_edges(num_bins)
    with np.errstate(invalid="ignore"):  # too large for an integer
        above = (confidence * FIXED_POINT).astype(np.int64) - edges
    if np.array_equal((edges + above) / FIXED_POINT, confidence) and not above[count == 0].any():
        return {**packed, "above_edges": _text(pack_integers(above[count > 0]))}
    return {**packed, "confidence": array_to_json(confidence)}


def sums_from_json(data: Mapping[str, Any], rows: int, num_bins: int) -> Sums:
    """The sums that :func:`sums_to_json` wrote, of ``rows`` classes (and the top label), on the CPU."""
    shape = (2, rows, len(fine_edges(num_bins)) - 1)
    counts = zlib.decompress(_bytes(data["counts"]))
    count, hits = unpack_integers(counts, int(np.prod(shape))).reshape(shape)
    if "confidence" in data:
        confidence = array_from_json(data["confidence"])
    else:
        units = count * _lower_edges(num_bins)
        units[count > 0] += unpack_integers(_bytes(data["above_edges"]), int((count > 0).sum()))
        confidence = units / FIXED_POINT
    scores, problems = array_from_json(data["scores"]), np.array(data["problems"], dtype=np.int64)
    tensors = [torch.from_numpy(value) for value in (count, hits, np.zeros_like(hits), confidence, scores, problems)]
    return Sums(*tensors)


def pack_integers(values: NDArray[np.int64]) -> bytes:
    """LEB128: seven bits of a number a byte, the lowest first; the eighth bit says that the number goes on.

    Example:
        >>> list(pack_integers(np.array([1, 300, 0])))
        [1, 172, 2, 0]
    """
    packed = np.empty(_LONGEST * values.size, np.uint8)
    return packed[: _pack(values.ravel().view(np.uint64), packed)].tobytes()


def unpack_integers(data: bytes, size: int) -> NDArray[np.int64]:
    """The ``size`` numbers that :func:`pack_integers` packed.

    Raises: ``ValueError`` if the data hold fewer numbers or more.

    Example:
        >>> unpack_integers(bytes([1, 172, 2, 0]), 3).tolist()
        [1, 300, 0]
    """
    packed = np.frombuffer(data, np.uint8)
    found = int((packed < _GOES_ON).sum())
    if found != size or (data and packed[-1] >= _GOES_ON):
        raise ValueError(f"expected {size} packed numbers, got {found} in {len(data)} bytes")
    values = np.zeros(size, np.uint64)
    _unpack(packed, values)
    return values.view(np.int64)


@jit
def _pack(values, packed):
    n = 0
    for i in range(values.size):
        rest = values[i]
        while rest >= _GOES_ON:
            packed[n] = np.uint8(rest & _SEVEN_BITS) | _GOES_ON
            rest >>= _SEVEN
            n += 1
        packed[n] = np.uint8(rest)
        n += 1
    return n


@jit
def _unpack(packed, values):
    i = 0
    shift = np.uint64(0)
    for byte in packed:
        values[i] |= (np.uint64(byte) & _SEVEN_BITS) << shift
        shift += _SEVEN
        if byte < _GOES_ON:
            i += 1
            shift = np.uint64(0)


@lru_cache(maxsize=8)
def _lower_edges(num_bins: int) -> NDArray[np.int64]:
    """In units of 2^-30."""
    return (fine_edges(num_bins)[:-1].double() * FIXED_POINT).long().numpy()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)
