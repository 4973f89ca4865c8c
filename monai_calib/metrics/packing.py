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

from monai_calib.metrics.bins import fine_edges
from monai_calib.metrics.serial import array_from_json, array_to_json
from monai_calib.metrics.sums import FIXED_POINT, Sums

__all__ = ["pack_integers", "sums_from_json", "sums_to_json", "unpack_integers"]


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
    return Sums(*(torch.from_numpy(value) for value in (count, hits, confidence, scores, problems)))


def pack_integers(values: NDArray[np.int64]) -> bytes:
    """Seven bits of each number, then the next seven of those that need more, and so on; the eighth bit says which do.

    Example:
        >>> list(pack_integers(np.array([1, 300, 0])))
        [1, 172, 0, 2]
    """
    rest, planes = values.astype(np.uint64).ravel(), []
    while len(rest):
        more = rest > 127
        plane = rest.astype(np.uint8)  # whose eighth bit is of the next seven
        planes.append(np.where(more, plane | 128, plane).tobytes())
        rest = rest[more] >> np.uint64(7)
    return b"".join(planes)


def unpack_integers(data: bytes, size: int) -> NDArray[np.int64]:
    """The ``size`` numbers that :func:`pack_integers` packed, int64.

    Raises: ``ValueError`` if the data hold fewer numbers or more.

    Example:
        >>> unpack_integers(bytes([1, 172, 0, 2]), 3).tolist()
        [1, 300, 0]
    """
    values, where, shift = np.zeros(size, np.uint64), np.arange(size), 0
    rest: NDArray[np.uint8] = np.frombuffer(data, np.uint8)
    while len(where):
        plane, rest = rest[: len(where)], rest[len(where) :]
        if len(plane) < len(where):
            raise ValueError(f"expected {size} packed numbers, but the data end before them")
        values[where] |= (plane & 127).astype(np.uint64) << np.uint64(shift)
        where, shift = where[plane > 127], shift + 7
    if len(rest):
        raise ValueError(f"expected {size} packed numbers, but {len(rest)} bytes follow them")
    return values.view(np.int64)


@lru_cache(maxsize=8)
def _lower_edges(num_bins: int) -> NDArray[np.int64]:
    """In units of 2^-30."""
    return (fine_edges(num_bins)[:-1].double() * FIXED_POINT).long().numpy()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)
