"""Calibration errors without bins: smoothed by a Gaussian (smooth ECE), and by a kernel's norm (MMCE).

Both are functions of where confidences lie and of the residuals ``hit - confidence`` there. A histogram knows the sum
of the residuals of each fine bin exactly, and the places but for the width of the bin, which is 1/24000 where nearly
all voxels of a volume lie and 1/960 between. What that can change is told as a bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import idct

from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.selective import Bounded

__all__ = ["mmce", "smooth_ece"]

_Array = NDArray[np.float64]
_FREQUENCIES = (512, 4096, 16384)
_STEPS = 30


class _Residuals(NamedTuple):
    """Of the bins that hold voxels: mean confidence, mean residual over all voxels, width of the bin, and the largest
    mean of the residuals' sizes that the bin can hide."""

    place: _Array
    residual: _Array
    width: _Array
    largest: _Array


def smooth_ece(hist: CalibrationHistogram, class_index: int | None = None) -> Bounded:
    """Smooth ECE: the calibration error after smoothing by a Gaussian as wide as the error itself.

    ``smECE_s = integral_0^1 |1 / N sum_i (hit_i - conf_i) K_s(t, conf_i)| dt`` with the Gaussian kernel reflected at 0
    and 1; it never rises with ``s``, and the smooth ECE is the one ``s`` with ``smECE_s = s``. It has no bins, is
    continuous, and within constant factors it is the distance to the nearest calibrated prediction.

    The reflected Gaussian damps the cosine ``k`` by ``exp(-(pi k s)^2 / 2)``, so that the residuals' cosine transform
    gives every ``s`` at once, without a grid of confidences. Places are the mean confidences of the fine bins: moving
    one by ``d`` changes its kernel by at most ``sqrt(2 / pi) d / s`` in all, which makes the bounds. Below 0.0002
    it is not resolved: ``low`` is 0 then.

    Args:
        hist: filled.
        class_index: a class, or ``None`` for the top label.

    Source: Blasiok and Nakkiran, ICLR 2024; https://arxiv.org/abs/2309.12236

    Example:
        >>> import torch
        >>> hist = CalibrationHistogram(2)
        >>> hist.update(torch.tensor([[[0.7], [0.3]]]), torch.zeros(1, 1), from_logits=False)  # says 0.7, is right
        >>> round(smooth_ece(hist).value, 3)
        0.3
    """
    known = _residuals(hist, class_index)
    if not len(known.place):
        return Bounded(math.nan, math.nan, math.nan)
    hidden = math.sqrt(2 / math.pi) * float((known.largest * known.width).sum())
    for number in _FREQUENCIES:
        least = 6 / (math.pi * number)  # below it, cosines that are left out would matter
        curve = _Smoothed(known, number)
        value = _fixed_point(curve.error, least)
        if value > least:
            break
    high = _fixed_point(lambda s: curve.error(s) + hidden / s, least)
    low = 0.0
    for s in np.geomspace(value, least, 60) if value > least else ():
        if curve.error(s) - hidden / s >= s:
            low = float(s)
            break
    return Bounded(value, low, max(high, value))


def mmce(hist: CalibrationHistogram, width: float = 0.4, class_index: int | None = None) -> Bounded:
    """Maximum mean calibration error: the kernel norm of the residuals.

    ``sqrt(1 / N^2 sum_ij (hit_i - conf_i) (hit_j - conf_j) exp(-|conf_i - conf_j| / width))``, the largest mean
    residual weighed by any function of confidence with norm 1 in the kernel's space; 0 only of a calibrated prediction.
    Pairs of voxels are pairs of fine bins here; places change a term by at most the bins' widths over ``width``, which
    makes the bounds. (The kernel calibration error of all classes together, Widmann et al., NeurIPS 2019, needs pairs
    of whole probability vectors, of which a histogram knows nothing.)

    Args:
        hist: filled.
        width: of the Laplace kernel; the source's is 0.4.
        class_index: a class, or ``None`` for the top label.

    Source: Kumar, Sarawagi and Jain, ICML 2018; https://proceedings.mlr.press/v80/kumar18a.html

    Example:
        >>> import torch
        >>> hist = CalibrationHistogram(2)
        >>> hist.update(torch.tensor([[[0.7], [0.3]]]), torch.zeros(1, 1), from_logits=False)  # says 0.7, is right
        >>> round(mmce(hist).value, 6)
        0.3
    """
    if not width > 0:
        raise ValueError(f"width: expected a positive number, got {width}")
    known = _residuals(hist, class_index)
    if not len(known.place):
        return Bounded(math.nan, math.nan, math.nan)
    kernel = np.exp(-np.abs(known.place[:, None] - known.place) / width)
    square = max(0.0, float(known.residual @ kernel @ known.residual))
    hidden = 2 / width * float(known.largest.sum() * (known.largest * known.width).sum())
    return Bounded(math.sqrt(square), math.sqrt(max(0.0, square - hidden)), math.sqrt(square + hidden))


class _Smoothed:
    """The residuals' cosine transform, from which every smoothing is one inverse transform."""

    def __init__(self, known: _Residuals, number: int) -> None:
        self._frequencies = np.arange(number)
        self._transform = np.empty(number)
        for part in np.array_split(self._frequencies, max(1, number // 512)):  # bounded memory
            self._transform[part] = np.cos(math.pi * part[:, None] * known.place) @ known.residual

    def error(self, s: float) -> float:
        """``smECE_s``: the mean of the smoothed residuals' sizes over 0 ... 1."""
        damped = self._transform * np.exp(-((math.pi * s * self._frequencies) ** 2) / 2)
        points = 2 * len(damped)
        # idct of type 2, unscaled: c_0 / (2 M) + 1 / M sum c_k cos(pi k (t + 1/2) / M), at the M midpoints
        return float(np.abs(idct(damped, n=points) * 2 * points).mean())


def _fixed_point(error: Callable[[float], float], least: float) -> float:
    """The ``s`` in ``least ... 1`` at which a falling function equals ``s``."""
    low, high = least, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if error(middle) > middle else (low, middle)
    return (low + high) / 2 if low > least else least


def _residuals(hist: CalibrationHistogram, class_index: int | None) -> _Residuals:
    bins = hist.bins(None, class_index)
    filled = (bins.count > 0).numpy()
    count, hits = bins.count.double().numpy()[filled], bins.hits.double().numpy()[filled]
    confidence, edges = bins.confidence.numpy()[filled], bins.edges.numpy()
    lower, upper = edges[:-1][filled], edges[1:][filled]
    total = count.sum()
    largest = (hits * (1 - lower) + (count - hits) * upper) / total
    return _Residuals(confidence / count, (hits - confidence) / total, upper - lower, largest)
