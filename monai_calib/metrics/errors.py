"""Calibration errors: each a small function of one histogram.

``class_index=None`` is the top label (confidence = largest probability), a number is that class. ``n_b`` is the number
of voxels in a bin, ``N`` their sum, ``conf_b`` and ``acc_b`` the mean confidence and the share of hits in it, and
``gap_b = conf_b - acc_b``. Bins are of equal width, and their number is a divisor of the histogram's (``ValueError``
otherwise). Of no voxel, every metric is NaN; :meth:`CalibrationHistogram.describe` says why.
"""

from __future__ import annotations

import math

import torch

from monai_calib.metrics.bins import coarse_of_fine
from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.selective import Bounded

__all__ = [
    "ace",
    "adaptive_ece",
    "debiased_ece",
    "ece",
    "ks_error",
    "mce",
    "over_confidence",
    "penalised_ece",
    "rmsce",
    "under_confidence",
]


def ece(hist: CalibrationHistogram, num_bins: int = 15, class_index: int | None = None) -> float:
    """Expected calibration error: ``sum_b n_b / N * |gap_b|``.

    Source: Guo et al., ICML 2017; https://arxiv.org/abs/1706.04599

    Example:
        >>> hist = CalibrationHistogram(2)
        >>> hist.update(torch.tensor([[[0.7], [0.3]]]), torch.zeros(1, 1), from_logits=False)  # says 0.7, is right
        >>> round(ece(hist), 6)
        0.3
    """
    return float(hist.bins(num_bins, class_index).share_of_gap().abs().sum())


def over_confidence(hist: CalibrationHistogram, num_bins: int = 15, class_index: int | None = None) -> float:
    """The part of the ECE where confidence exceeds accuracy: ``sum_b n_b / N * max(gap_b, 0)``, at least 0.

    ``over - under`` is mean confidence minus accuracy, whatever the bins; ``over + under`` is the ECE.

    Example:
        >>> hist = CalibrationHistogram(2)
        >>> hist.update(torch.tensor([[[0.7], [0.3]]]), torch.ones(1, 1), from_logits=False)  # says 0.7, is wrong
        >>> round(over_confidence(hist), 6), under_confidence(hist)
        (0.7, 0.0)
    """
    return float(hist.bins(num_bins, class_index).share_of_gap().clamp_min(0).sum())


def under_confidence(hist: CalibrationHistogram, num_bins: int = 15, class_index: int | None = None) -> float:
    """The part of the ECE where accuracy exceeds confidence: ``sum_b n_b / N * max(-gap_b, 0)``, at least 0.

    Example:
        >>> hist = CalibrationHistogram(2)
        >>> hist.update(torch.tensor([[[0.7], [0.3]]]), torch.zeros(1, 1), from_logits=False)  # says 0.7, is right
        >>> round(under_confidence(hist), 6), over_confidence(hist)
        (0.3, 0.0)
    """
    return float((-hist.bins(num_bins, class_index).share_of_gap()).clamp_min(0).sum())


def ace(hist: CalibrationHistogram, num_bins: int = 15, class_index: int | None = None) -> float:
    """Average calibration error: mean of ``|gap_b|`` over the bins that hold voxels, each bin weighing the same.

    Source: Neumann et al., 2018 (as used in Barfoot et al., MICCAI 2024, https://arxiv.org/abs/2403.06759)

    Example:
        >>> hist = CalibrationHistogram(2)
        >>> p = torch.tensor([0.9, 0.9, 0.9, 0.6])  # three voxels of one bin are right, one of another is wrong
        >>> hist.update(torch.stack([p, 1 - p])[None], torch.tensor([[0, 0, 0, 1]]), from_logits=False)
        >>> round(ace(hist), 6), round(ece(hist), 6)  # (0.1 + 0.6) / 2 and (3 * 0.1 + 0.6) / 4
        (0.35, 0.225)
    """
    return float(hist.bins(num_bins, class_index).gap().abs().nanmean())


def mce(hist: CalibrationHistogram, num_bins: int = 15, class_index: int | None = None) -> float:
    """Maximum calibration error: the largest ``|gap_b|``; a single voxel may decide it.

    Source: Naeini et al., AAAI 2015.

    Example:
        >>> hist = CalibrationHistogram(2)
        >>> p = torch.tensor([0.9, 0.9, 0.9, 0.6])
        >>> hist.update(torch.stack([p, 1 - p])[None], torch.tensor([[0, 0, 0, 1]]), from_logits=False)
        >>> round(mce(hist), 6)
        0.6
    """
    gap = hist.bins(num_bins, class_index).gap().abs()
    gap = gap[~gap.isnan()]
    return float(gap.max()) if len(gap) else math.nan


def rmsce(hist: CalibrationHistogram, num_bins: int = 15, class_index: int | None = None) -> float:
    """Root mean square calibration error: ``sqrt(sum_b n_b / N * gap_b^2)``.

    Source: Hendrycks et al., ICLR 2019; https://arxiv.org/abs/1812.04606

    Example:
        >>> hist = CalibrationHistogram(2)
        >>> hist.update(torch.tensor([[[0.7], [0.3]]]), torch.zeros(1, 1), from_logits=False)
        >>> round(rmsce(hist), 6)
        0.3
    """
    bins = hist.bins(num_bins, class_index)
    if not bins.count.sum():
        return math.nan
    return float((bins.count * bins.gap().nan_to_num(0).square()).sum().div(bins.count.sum()).sqrt())


def adaptive_ece(hist: CalibrationHistogram, num_bins: int = 15, class_index: int | None = None) -> float:
    """ECE over bins that hold (nearly) the same number of voxels.

    Equal-mass bins are runs of fine bins: a fine bin goes, whole, where the rank of its first voxel belongs. Ties
    are thereby never torn apart. The value differs from one on sorted confidences by less than what fine bins
    can hide; in published test vectors of a few hundred voxels, by less than 0.005.

    Source: Nixon et al., CVPR workshops 2019; https://arxiv.org/abs/1904.01685

    Example:
        >>> hist = CalibrationHistogram(2)
        >>> hist.update(torch.tensor([[[0.7], [0.3]]]), torch.zeros(1, 1), from_logits=False)
        >>> round(adaptive_ece(hist), 6)
        0.3
    """
    if num_bins < 1:
        raise ValueError(f"num_bins: expected at least 1, got {num_bins}")
    fine = hist.bins(None, class_index)
    total = int(fine.count.sum())
    if not total:
        return math.nan
    first_rank = fine.count.cumsum(0) - fine.count
    # Bin j holds the ranks in (j * total / num_bins, (j + 1) * total / num_bins]; integers, so without rounding.
    index = ((first_rank * num_bins + total - 1) // total - 1).clamp(0, num_bins - 1)
    surplus = torch.zeros(num_bins, dtype=torch.float64).index_add_(0, index, fine.confidence - fine.hits)
    return float(surplus.abs().sum() / total)


def ks_error(hist: CalibrationHistogram, class_index: int | None = None) -> float:
    """Kolmogorov-Smirnov calibration error: ``max_c |sum over voxels with confidence <= c of (conf - hit)| / N``.

    Free of a choice of bins: taken at the edges of the fine ones.

    Source: Gupta et al., ICLR 2021; https://arxiv.org/abs/2006.12800

    Example:
        >>> hist = CalibrationHistogram(2)
        >>> hist.update(torch.tensor([[[0.7], [0.3]]]), torch.zeros(1, 1), from_logits=False)
        >>> round(ks_error(hist), 6)
        0.3
    """
    return float(hist.bins(None, class_index).share_of_gap().cumsum(0).abs().max())


def debiased_ece(hist: CalibrationHistogram, num_bins: int = 15, class_index: int | None = None) -> float:
    """ECE less the part that sampling noise adds to it, at least 0.

    Even of a perfectly calibrated prediction ``|gap_b|`` is positive, by about ``sqrt(2 / pi) * sigma_b`` with
    ``sigma_b^2 = acc_b * (1 - acc_b) / n_b``. The bias is estimated as in the source, by adding noise once more, but
    in closed form (mean of a folded normal): ``2 * ECE - sum_b n_b / N * E|gap_b + sigma_b * Z|``. Voxels count as
    independent, which neighbours are not: the true bias is larger.

    Source: Kumar et al., NeurIPS 2019; https://arxiv.org/abs/1909.10155

    Example:
        >>> hist = CalibrationHistogram(2)
        >>> label = (torch.arange(100) % 5 == 0).long()[None]  # one in five
        >>> hist.update(torch.tensor([0.75, 0.25])[None, :, None].expand(1, 2, 100), label, from_logits=False)
        >>> round(ece(hist), 3), round(debiased_ece(hist), 3)
        (0.05, 0.046)
    """
    bins = hist.bins(num_bins, class_index)
    if not bins.count.sum():
        return math.nan
    filled = bins.count > 0
    weight = bins.count[filled] / bins.count.sum()
    accuracy = bins.hits[filled] / bins.count[filled]
    gap = bins.gap()[filled].abs()
    sigma = (accuracy * (1 - accuracy) / bins.count[filled]).sqrt().clamp_min(1e-12)
    z = gap / sigma
    noisy = sigma * math.sqrt(2 / math.pi) * (-z.square() / 2).exp() + gap * torch.erf(z / math.sqrt(2))
    return max(0.0, float((weight * (2 * gap - noisy)).sum()))


def penalised_ece(hist: CalibrationHistogram, num_bins: int = 10, fp_weight: float = 2.0) -> Bounded:
    """ECE of the foreground's probability with false positives counted again (pECE).

    ``sum_b n_b / N * |conf_b - acc_b + fp_weight * conf_fp_b|`` with the foreground's probability ``1 - p_0`` as
    confidence, its share as accuracy, and ``conf_fp_b`` the mean confidence of the background's voxels in the bin. A
    penalty rather than an error of calibration: that of a calibrated prediction is not 0, but for a constant ``p`` it
    is ``fp_weight * p``, and in each bin under-confidence offsets it. ``conf_fp_b`` is known up to the width of a fine
    bin, which makes the bounds.

    Args:
        hist: filled, of exclusive classes.
        num_bins: a divisor of the histogram's bins.
        fp_weight: how much false positives count, 0 for the plain ECE of the foreground.

    Source: Liang et al., CIKM 2025, algorithm 1; https://arxiv.org/abs/2503.05107

    Example:
        >>> hist = CalibrationHistogram(2)
        >>> label = (torch.arange(100) % 5 == 0).long()[None]  # one in five
        >>> hist.update(torch.tensor([0.8, 0.2])[None, :, None].expand(1, 2, 100), label, from_logits=False)
        >>> round(penalised_ece(hist).value, 6), round(penalised_ece(hist, fp_weight=0).value, 6)
        (0.4, 0.0)
    """
    if hist.activation != "softmax":
        raise ValueError("penalised_ece: expected a histogram of exclusive classes, got a multi-label (sigmoid) one")
    if fp_weight < 0:
        raise ValueError(f"fp_weight: expected at least 0, got {fp_weight}")
    fine = hist.bins(None, 0)  # of the background: its misses are the foreground's hits
    total = float(fine.count.sum())
    if not total:
        return Bounded(math.nan, math.nan, math.nan)
    background, background_mass = fine.hits.double(), fine.count - fine.confidence
    mean = background_mass / fine.count.clamp_min(1)
    lower, upper = 1 - fine.edges[1:], 1 - fine.edges[:-1]
    # voxels of both labels in one fine bin share its sum of probabilities as the bin's edges allow
    foreground = fine.count - background
    low = torch.maximum(background * lower, background_mass - foreground * upper)
    high = torch.minimum(background * upper, background_mass - foreground * lower)
    coarse = coarse_of_fine(hist.num_bins, num_bins)

    def summed(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(num_bins, dtype=torch.float64).index_add_(0, coarse, values.double())

    count, negatives = summed(fine.count), summed(background)
    gap = summed(background_mass) - (count - negatives)
    penalty = fp_weight * count / negatives.clamp_min(1e-300)
    parts = [gap + penalty * summed(side) for side in (background * mean, low, high)]
    value, below, above = (part.abs() for part in parts)
    least = torch.where(parts[1] * parts[2] < 0, torch.zeros_like(value), torch.minimum(below, above))
    return Bounded(*(float(side.sum() / total) for side in (value, least, torch.maximum(below, above))))
