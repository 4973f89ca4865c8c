"""Numbers of a stored map as probabilities: checked, and zeros of a coarse file raised to what they may have been."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from monai_calib.files import FileError
from monai_calib.metrics.sums import SMALLEST_PROBABILITY, sum_tolerance

__all__ = ["HALF_FLOOR", "Probabilities", "probabilities_of", "smallest_of"]

HALF_FLOOR = 2.0**-25
"""Numbers below this are 0 in float16: half its smallest one."""


class Probabilities(NamedTuple):
    """Probabilities ``(K, x, y, z)`` float32, and how many of all numbers were 0 and have been floored."""

    values: torch.Tensor
    floored: int


def probabilities_of(values: NDArray[Any], dtype: np.dtype[Any], logits: bool, what: Any) -> Probabilities:
    """Check a map and bring it to float32.

    A file in float16, or in scaled integers, has zeros where the network had a small probability. They are taken as the
    largest number that such a file rounds to 0 (see :func:`smallest_of`), so that a single one does not decide a
    logarithm; voxels are then normalised, since coarse numbers do not sum to 1.

    Args:
        values: ``(K, x, y, z)``.
        dtype: of the numbers in the file.
        logits: whether they are logits, whose softmax is taken.
        what: the file, for errors.

    Raises: :class:`~monai_calib.files.FileError` naming the file: values that are not finite, not within 0 ... 1, do
        not sum to 1, are class numbers, or are probabilities where logits were said and the other way round.

    Example:
        >>> half = np.array([1.0, 0.0], np.float16).reshape(2, 1, 1, 1) * [[[[1.0, 0.75]]], [[[1.0, 0.25]]]]
        >>> half[1, ..., 1] = 0.25
        >>> found = probabilities_of(half.astype(np.float16), np.dtype(np.float16), False, "a.npz")
        >>> found.floored, found.values[1].flatten().tolist()
        (1, [2.9802322387695312e-08, 0.25])
    """
    if values.dtype.kind not in "fiub":
        raise FileError(
            f"{what}: expected probabilities, got numbers of type {values.dtype}. Save the softmax's output."
        )
    array = np.ascontiguousarray(values, np.float32)
    finite = np.isfinite(array)
    if not finite.all():
        wrong = int(array.size - finite.sum())
        raise FileError(f"{what}: expected finite numbers, got {wrong} NaN or infinite. Run the network in float32.")
    low, high, sums = float(array.min()), float(array.max()), array.sum(0, dtype=np.float32)
    tolerance = _tolerance(values, dtype)
    off = np.abs(sums - 1) > tolerance
    proper = low >= -1e-6 and high <= 1 + tolerance and not off.any()
    if logits:
        if proper:
            raise FileError(f"{what}: expected logits, got probabilities (all sum to 1). Leave --logits out.")
        return Probabilities(torch.from_numpy(array).softmax(0), 0)
    if len(array) < 2:
        raise FileError(
            f"{what}: expected one probability per class, background included, got one channel. Save 1 - p as the "
            "background's."
        )
    if not proper:
        raise FileError(f"{what}: {_improper(array, low, high, sums, off)}")
    zeros = array == 0
    if bool((zeros | (array == 1)).all()):
        raise FileError(
            f"{what}: expected probabilities, got nothing but 0 and 1: class numbers, one-hot. Save the softmax's "
            "output before argmax."
        )
    smallest = smallest_of(values, dtype)
    floored = int(zeros.sum()) if smallest > SMALLEST_PROBABILITY else 0
    np.maximum(array, np.float32(smallest), out=array)
    if smallest > SMALLEST_PROBABILITY:
        array /= array.sum(0, dtype=np.float32)
        np.maximum(array, np.float32(smallest), out=array)
    return Probabilities(torch.from_numpy(array), floored)


def smallest_of(values: NDArray[Any], dtype: np.dtype[Any]) -> float:
    """The probability that a 0 of a file stands for at most.

    2^-25 in float16, also where float16 was converted to a wider type; half a step in scaled integers; the smallest
    normal float32 otherwise.
    """
    if dtype.kind != "f":
        positive = values[values > 0]
        return float(positive.min()) / 2 if positive.size else SMALLEST_PROBABILITY
    if dtype.itemsize == 2:
        return HALF_FLOOR
    if values.ravel()[:4096].astype(np.float16).astype(values.dtype).tobytes() != values.ravel()[:4096].tobytes():
        return SMALLEST_PROBABILITY  # quickly told
    return HALF_FLOOR if np.array_equal(values, values.astype(np.float16)) else SMALLEST_PROBABILITY


def _tolerance(values: NDArray[Any], dtype: np.dtype[Any]) -> float:
    if dtype.kind == "f":
        return sum_tolerance(torch.float32 if dtype.itemsize > 2 else torch.float16)
    positive = values[values > 0]
    return 1e-3 + (len(values) * float(positive.min()) if positive.size else 0.0)


def _improper(
    array: NDArray[np.float32], low: float, high: float, sums: NDArray[np.float32], off: NDArray[np.bool_]
) -> str:
    said = f"expected probabilities that sum to 1 at every voxel, got values from {low:.4g} to {high:.4g}"
    if low < -1e-6:
        return f"{said}. If these are logits, add --logits True."
    share = 100 * float(off.mean())
    said += f" and sums from {float(sums.min()):.4g} to {float(sums.max()):.4g}, off in {share:.3g} % of voxels"
    if high > 1.5:
        return f"{said}. Divide by what stands for 1 (100, 255), or, if these are logits, add --logits True."
    return (
        f"{said}. Maps of overlapping regions (sigmoid, as of nnU-Net's region-based training) are not read; maps of "
        "all classes must have the background's, and be normalised after resampling."
    )
