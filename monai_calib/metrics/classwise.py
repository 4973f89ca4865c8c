"""Calibration errors of each class's own probability, and their mean over classes."""

from __future__ import annotations

from typing import Literal

import torch

from monai_calib.metrics.bins import THRESHOLD
from monai_calib.metrics.histogram import Bins, CalibrationHistogram

__all__ = ["Absent", "class_mean", "classwise_ece", "classwise_ece_per_class"]

Absent = Literal["skip", "count", "paper"]


def classwise_ece(
    hist: CalibrationHistogram,
    num_bins: int = 15,
    threshold: float = 0.0,
    absent: Absent = "skip",
    include_background: bool = True,
) -> float:
    """Mean over classes of the ECE of the class's own probability (cECE; TACE-like with ``threshold=1e-3``).

    ``1 / K * sum_k sum_b n_kb / N_k * |conf_kb - acc_kb|``, where ``N_k`` counts the voxels with ``s_k > threshold``.

    Args:
        num_bins: a divisor of the histogram's bins; ``ValueError`` otherwise.
        threshold: 0 for all voxels; 1e-3 leaves out those that are far from the class, which would swamp it.
        absent: what of classes that no label bears; see :func:`class_mean`.
        include_background: whether class 0 enters the mean.

    Source: Nixon et al., CVPR workshops 2019; https://arxiv.org/abs/1904.01685

    Example:
        >>> hist = CalibrationHistogram(2)
        >>> hist.update(torch.tensor([[[0.7], [0.3]]]), torch.zeros(1, 1), from_logits=False)
        >>> round(classwise_ece(hist, absent="count"), 6)  # class 0: |0.7 - 1|, class 1: |0.3 - 0|
        0.3
    """
    return class_mean(hist, classwise_ece_per_class(hist, num_bins, threshold), absent, include_background)


def classwise_ece_per_class(hist: CalibrationHistogram, num_bins: int = 15, threshold: float = 0.0) -> torch.Tensor:
    """The ECE of each class's own probability, float64 ``(K,)``, absent classes as well; see :func:`classwise_ece`.

    Example:
        >>> hist = CalibrationHistogram(2)
        >>> hist.update(torch.tensor([[[0.7], [0.3]]]), torch.zeros(1, 1), from_logits=False)
        >>> classwise_ece_per_class(hist)
        tensor([0.3000, 0.3000], dtype=torch.float64)
    """
    return _above(hist, num_bins, threshold).share_of_gap().abs().sum(-1)


def class_mean(
    hist: CalibrationHistogram, values: torch.Tensor, absent: Absent = "skip", include_background: bool = True
) -> float:
    """Mean of one value a class, ``values (K,)``, over the classes that should count; NaN if none does.

    Args:
        absent: classes that no voxel's label bears: ``"skip"`` leaves them out; ``"count"`` takes all classes;
            ``"paper"`` takes 0 ... the highest label present, as the NACL and MbLS authors' code does.
        include_background: whether class 0 counts.

    Raises: ``ValueError`` for another ``absent``.

    Example:
        >>> hist = CalibrationHistogram(3)
        >>> hist.update(torch.randn(1, 3, 2), torch.tensor([[0, 1]]))  # class 2 is absent
        >>> class_mean(hist, torch.tensor([1.0, 2.0, 9.0])), class_mean(hist, torch.tensor([1.0, 2.0, 9.0]), "count")
        (1.5, 4.0)
    """
    present = hist.class_voxels() > 0
    if absent == "skip":
        chosen = present.clone()
    elif absent == "count":
        chosen = torch.ones_like(present)
    elif absent == "paper":
        chosen = present.flip(0).cummax(0).values.flip(0)
    else:
        raise ValueError(f"absent: expected 'skip', 'count' or 'paper', got {absent!r}")
    if not include_background:
        chosen[0] = False
    # A class of which no probability exceeds the threshold has no voxel to be wrong about: NaN, left out.
    return float(values[chosen].nanmean())


def _above(hist: CalibrationHistogram, num_bins: int, threshold: float) -> Bins:
    """Coarse bins of the voxels whose probability exceeds ``threshold``, one row a class."""
    coarse = hist.class_bins(num_bins)
    if threshold == 0:
        return coarse
    fine = hist.class_bins()
    edge = torch.tensor(threshold).double()  # as float32, like the edges
    below = int((fine.edges < edge).sum())
    if not 0 < threshold < 1 or fine.edges[below] != edge or edge > coarse.edges[1]:
        raise ValueError(
            f"threshold: expected 0 or an edge of the fine bins within the first of {num_bins} bins, "
            f"such as {THRESHOLD}, got {threshold}"
        )
    count, hits, confidence = (value.clone() for value in coarse[1:])
    for whole, parts in ((count, fine.count), (hits, fine.hits), (confidence, fine.confidence)):
        whole[:, 0] -= parts[:, :below].sum(-1)
    return Bins(coarse.edges, count, hits, confidence)
