"""Proper scores, and what they are made of."""

from __future__ import annotations

import math
from typing import NamedTuple

from monai_calib.metrics.histogram import CalibrationHistogram

__all__ = ["BrierDecomposition", "brier", "brier_decomposition", "nll", "root_brier", "sharpness"]


def nll(hist: CalibrationHistogram) -> float:
    """Negative log-likelihood, in nats a voxel: ``mean(-log s_y)``; sigmoid: summed over the K binary labels.

    From logits it is exact; from probabilities ``s_y`` is at least 1.2e-38 (87.3 nats), and how often it was 0 instead
    stands in :meth:`CalibrationHistogram.describe`.

    Example:
        >>> import torch
        >>> hist = CalibrationHistogram(2)
        >>> hist.update(torch.zeros(1, 2, 5), torch.zeros(1, 5))  # equal logits: log 2
        >>> round(nll(hist), 6)
        0.693147
    """
    return _mean_score(hist, 0)


def brier(hist: CalibrationHistogram) -> float:
    """Brier score a voxel, summed over classes: ``mean(sum_k (s_k - [y = k])^2)``, from 0 to 2 (sigmoid: K).

    Source: Brier, Monthly Weather Review 78, 1950.

    Example:
        >>> import torch
        >>> hist = CalibrationHistogram(2)
        >>> hist.update(torch.zeros(1, 2, 5), torch.zeros(1, 5))
        >>> brier(hist)
        0.5
    """
    return _mean_score(hist, 1)


def root_brier(hist: CalibrationHistogram) -> float:
    """Square root of the Brier score: an upper bound of the calibration error of all classes together.

    ``sqrt(mean(sum_k (s_k - [y = k])^2)) >= sqrt(mean ||s - E[y | s]||^2)``, from 0 to the root of 2: a bound
    of the error of whole probability vectors that needs neither bins nor pairs of voxels.

    Source: Gruber and Buettner, NeurIPS 2022; https://arxiv.org/abs/2203.07835

    Example:
        >>> import torch
        >>> hist = CalibrationHistogram(2)
        >>> hist.update(torch.tensor([[[0.6], [0.4]]]), torch.tensor([[1]]), from_logits=False)
        >>> round(root_brier(hist), 6)  # sqrt(0.6^2 + 0.6^2)
        0.848528
    """
    return math.sqrt(brier(hist))


def _mean_score(hist: CalibrationHistogram, index: int) -> float:
    hist.check()
    return float(hist.sums.scores[index]) / hist.voxels if hist.voxels else math.nan


class BrierDecomposition(NamedTuple):
    """``brier = reliability - resolution + uncertainty + within_bin``; each summed over classes."""

    reliability: float
    resolution: float
    uncertainty: float
    within_bin: float


def brier_decomposition(hist: CalibrationHistogram, num_bins: int | None = None) -> BrierDecomposition:
    """Murphy's decomposition of the Brier score, summed over classes.

    With ``base_k`` the share of class k: reliability ``sum_b n_b / N * (conf_b - acc_b)^2`` (smaller is better),
    resolution ``sum_b n_b / N * (acc_b - base_k)^2`` (larger is better), uncertainty ``base_k * (1 - base_k)`` (of
    the data alone). ``within_bin`` is what differs among voxels of one bin; next to nothing in fine bins.

    Args:
        num_bins: a divisor of the histogram's bins, or ``None`` for all fine bins.

    Source: Murphy, Journal of Applied Meteorology 12, 1973.

    Example:
        >>> import torch
        >>> hist = CalibrationHistogram(2)
        >>> p = torch.tensor([0.9, 0.9, 0.2, 0.2])
        >>> hist.update(torch.stack([1 - p, p])[None], torch.tensor([[1, 1, 0, 1]]), from_logits=False)
        >>> [round(part, 4) for part in brier_decomposition(hist)]
        [0.1, 0.125, 0.375, 0.0]
    """
    if not hist.voxels:
        return BrierDecomposition(math.nan, math.nan, math.nan, math.nan)
    reliability = resolution = uncertainty = 0.0
    for k in range(hist.num_classes):
        bins = hist.bins(num_bins, k)
        weight = bins.count / bins.count.sum()
        base = float(bins.hits.sum() / bins.count.sum())
        accuracy = (bins.hits / bins.count).nan_to_num(base)
        reliability += float((weight * bins.gap().nan_to_num(0).square()).sum())
        resolution += float((weight * (accuracy - base).square()).sum())
        uncertainty += base * (1 - base)
    return BrierDecomposition(
        reliability, resolution, uncertainty, brier(hist) - (reliability - resolution + uncertainty)
    )


def sharpness(hist: CalibrationHistogram) -> float:
    """Commitment of a prediction: variance of its probabilities over the voxels, summed over classes.

    0 for one that says the same everywhere. Says nothing of being right: of two calibrated predictions the sharper is
    the better. Taken over the fine bins, so short of the true value by at most ``K / 4 / 960^2``.

    Source: Gneiting, Balabdaoui and Raftery, Journal of the Royal Statistical Society B 69, 2007 (the principle).

    Example:
        >>> import torch
        >>> hist = CalibrationHistogram(2)
        >>> p = torch.tensor([0.9, 0.1])
        >>> hist.update(torch.stack([1 - p, p])[None], torch.tensor([[1, 0]]), from_logits=False)
        >>> round(sharpness(hist), 4)  # 0.4^2 for either class
        0.32
    """
    if not hist.voxels:
        return math.nan
    total = 0.0
    for k in range(hist.num_classes):
        bins = hist.bins(None, k)
        voxels = bins.count.sum()
        confidence = bins.confidence / bins.count.clamp_min(1)
        total += float((bins.count * (confidence - bins.confidence.sum() / voxels).square()).sum() / voxels)
    return total
