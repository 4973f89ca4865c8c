"""Calibration errors: each a small function of one histogram.

``class_index=None`` is the top label (confidence = largest probability), a number is that class. ``n_b`` is the number
of voxels in a bin, ``N`` their sum, ``conf_b`` and ``acc_b`` the mean confidence and the share of hits in it. Without
any voxel, figures are NaN; :meth:`CalibrationHistogram.describe` says why.
"""

from __future__ import annotations

from typing import Literal

import torch

from monai_calib.metrics.bins import THRESHOLD
from monai_calib.metrics.histogram import Bins, CalibrationHistogram

__all__ = ["classwise_ece", "classwise_ece_per_class", "ece"]


def ece(hist: CalibrationHistogram, num_bins: int = 15, class_index: int | None = None) -> float:
    """Expected calibration error: ``sum_b n_b / N * |conf_b - acc_b|`` over equal-width bins.

    Args:
        num_bins: a divisor of the histogram's bins; ``ValueError`` otherwise.
        class_index: a class, or ``None`` for the top label.

    Source: Guo et al., ICML 2017; https://arxiv.org/abs/1706.04599

    Example:
        >>> hist = CalibrationHistogram(2)
        >>> hist.update(torch.tensor([[[0.7], [0.3]]]), torch.zeros(1, 1), from_logits=False)  # says 0.7, is right
        >>> round(ece(hist), 6)
        0.3
    """
    return _ece(hist.bins(num_bins, class_index))


def _ece(bins: Bins) -> float:
    return float(bins.gap().abs().sum())


def classwise_ece_per_class(hist: CalibrationHistogram, num_bins: int = 15, threshold: float = 0.0) -> torch.Tensor:
    """The ECE of each class's own probability, float64 ``(K,)``; see :func:`classwise_ece`."""
    return torch.tensor(
        [_ece(_above(hist, num_bins, k, threshold)) for k in range(hist.num_classes)], dtype=torch.float64
    )


def _above(hist: CalibrationHistogram, num_bins: int, class_index: int, threshold: float) -> Bins:
    """Coarse bins of the voxels whose probability exceeds ``threshold``."""
    coarse = hist.bins(num_bins, class_index)
    if threshold == 0:
        return coarse
    fine = hist.bins(None, class_index)
    below = int(torch.searchsorted(fine.edges, torch.tensor(threshold).double()))
    if not 0 < threshold < 1 or fine.edges[below] != torch.tensor(threshold, dtype=torch.float32):
        raise ValueError(f"threshold: expected 0 or an edge of the fine bins, such as {THRESHOLD}, got {threshold}")
    if below > fine.count.numel() or fine.edges[below] > coarse.edges[1]:
        raise ValueError(f"threshold: expected at most the width of a bin, {float(coarse.edges[1])}, got {threshold}")
    values = []
    for whole, parts in zip(coarse[1:], fine[1:], strict=True):
        rest = whole.clone()
        rest[0] -= parts[:below].sum()
        values.append(rest)
    return Bins(coarse.edges, *values)


def classwise_ece(
    hist: CalibrationHistogram,
    num_bins: int = 15,
    threshold: float = 0.0,
    absent: Literal["skip", "count", "paper"] = "skip",
    include_background: bool = True,
) -> float:
    """Mean over classes of the ECE of the class's own probability (cECE; with ``threshold=1e-3`` TACE-like).

    ``1 / K * sum_k sum_b n_kb / N_k * |conf_kb - acc_kb|``, where ``N_k`` counts the voxels with ``s_k > threshold``.

    Args:
        num_bins: a divisor of the histogram's bins; ``ValueError`` otherwise.
        threshold: 0 for all voxels; 1e-3 leaves out those that are far from the class, which would swamp it.
        absent: classes that no voxel's label bears: ``"skip"`` leaves them out; ``"count"`` takes all classes;
            ``"paper"`` takes 0 ... the highest label present, as the NACL and MbLS authors' code does.
        include_background: whether class 0 enters the mean.

    Source: Nixon et al., CVPR workshops 2019; https://arxiv.org/abs/1904.01685

    Example:
        >>> hist = CalibrationHistogram(2)
        >>> hist.update(torch.tensor([[[0.7], [0.3]]]), torch.zeros(1, 1), from_logits=False)
        >>> round(classwise_ece(hist, absent="count"), 6)  # class 0: |0.7 - 1|, class 1: |0.3 - 0|
        0.3
    """
    errors = classwise_ece_per_class(hist, num_bins, threshold)
    present = hist.class_voxels() > 0
    chosen = present.clone()
    if absent == "count":
        chosen[:] = True
    elif absent == "paper":
        chosen[: int(present.nonzero().max()) + 1 if present.any() else 0] = True
    elif absent != "skip":
        raise ValueError(f"absent: expected 'skip', 'count' or 'paper', got {absent!r}")
    if not include_background:
        chosen[0] = False
    # A chosen class without any probability above the threshold has no bins, and no error to speak of.
    return float(errors[chosen].nanmean())
