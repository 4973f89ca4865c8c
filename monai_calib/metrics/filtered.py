"""Overlap of what is left when uncertain voxels are taken out: the score of the QU-BraTS challenge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_calib.metrics.histogram import CalibrationHistogram

__all__ = ["FilteredOverlap", "filtered_overlap", "filtered_overlap_of_histogram"]

_Array = NDArray[np.float64]
POINTS = 40


class FilteredOverlap(NamedTuple):
    """Curves over the thresholds on uncertainty, from 0 to 1, and what comes of them.

    Attributes:
        thresholds: voxels with an uncertainty above one of them are taken out.
        dice: of the voxels left, 1 where neither prediction nor truth has any.
        filtered_positive: share of the true positives that were taken out; NaN if there is none.
        filtered_negative: the same of the true negatives.
        score: ``(AUC(dice) + 1 - AUC(filtered_positive) + 1 - AUC(filtered_negative)) / 3``; of no true positives, or
            no true negatives, none are lost.
    """

    thresholds: _Array
    dice: _Array
    filtered_positive: _Array
    filtered_negative: _Array
    score: float


def filtered_overlap(
    predicted: Tensor, label: Tensor, uncertainty: Tensor, points: int = POINTS, mask: Tensor | None = None
) -> FilteredOverlap:
    """Overlap of one structure as uncertain voxels are taken out, for any map of uncertainty.

    Args:
        predicted, label: bool ``(*spatial)``, whether the structure is there.
        uncertainty: ``(*spatial)``, from 0 to 1; the challenge's is in per cent.
        points: intervals between the thresholds; 40, as in the challenge's script, are steps of 0.025.
        mask: bool ``(*spatial)``, the voxels that count; the challenge counts true negatives inside the brain.

    Raises: ``ValueError`` for shapes that differ or uncertainties outside 0 ... 1.
    Source: Mehta et al., QU-BraTS, MELBA 2022:026; https://arxiv.org/abs/2112.10074

    Example:
        >>> predicted, label = torch.tensor([True, True, False]), torch.tensor([True, False, False])
        >>> found = filtered_overlap(predicted, label, torch.tensor([0.1, 0.6, 0.1]), points=2)
        >>> found.thresholds.tolist(), found.dice.round(3).tolist()  # nothing left; one right; the wrong one too
        ([0.0, 0.5, 1.0], [1.0, 1.0, 0.667])
        >>> found.filtered_positive.tolist(), round(found.score, 3)
        ([1.0, 0.0, 0.0], 0.806)
    """
    if not predicted.shape == label.shape == uncertainty.shape or (mask is not None and mask.shape != label.shape):
        raise ValueError(
            "predicted, label, uncertainty and mask: expected one shape, got "
            f"{tuple(predicted.shape)}, {tuple(label.shape)}, {tuple(uncertainty.shape)}"
            + (f" and {tuple(mask.shape)}" if mask is not None else "")
        )
    if mask is not None:
        predicted, label, uncertainty = predicted[mask], label[mask], uncertainty[mask]
    if not bool(((uncertainty >= 0) & (uncertainty <= 1)).all()):
        raise ValueError(
            f"uncertainty: expected values from 0 to 1, got {float(uncertainty.min())} ... {float(uncertainty.max())}. "
            "Divide by its largest possible value."
        )
    thresholds = np.linspace(0, 1, points + 1)
    # kept from the first threshold on that is not below the uncertainty
    first = torch.searchsorted(torch.from_numpy(thresholds), uncertainty.flatten().double().cpu())
    kind = (2 * predicted.flatten().int() + label.flatten().int()).long().cpu()  # TN, FN, FP, TP
    counts = torch.bincount(4 * first + kind, minlength=4 * (points + 1)).view(-1, 4).double().numpy()
    return _from_counts(thresholds, counts)


def filtered_overlap_of_histogram(
    hist: CalibrationHistogram, class_index: int, points: int = POINTS
) -> FilteredOverlap:
    """The same of one class as a yes-or-no question, whose uncertainty is ``1 - |2 p - 1|``, from the histogram alone.

    Predicted is what has a probability above one half. Thresholds lie on edges of the bins, so that the counts are
    exact but for voxels that lie on an edge itself: those of probability 0 or 1, of which the threshold 0 consists,
    count from the next one on.

    Args:
        hist: filled.
        class_index: the class.
        points: intervals between the thresholds, a divisor of half the histogram's bins.

    Raises: ``ValueError`` for points that are no divisor, and as :meth:`CalibrationHistogram.bins`.

    Example:
        >>> hist = CalibrationHistogram(2)
        >>> p = torch.tensor([0.95, 0.7, 0.05])
        >>> hist.update(torch.stack([1 - p, p])[None], torch.tensor([[1, 0, 0]]), from_logits=False)
        >>> filtered_overlap_of_histogram(hist, 1, points=2).dice.round(3).tolist()
        [1.0, 1.0, 0.667]
    """
    half = hist.num_bins // 2
    if points < 1 or half % points:
        raise ValueError(f"points: expected a divisor of {half}, got {points}")
    bins = hist.bins(2 * points, class_index)
    count, hits = bins.count.double().numpy(), bins.hits.double().numpy()
    misses = count - hits
    counts = np.zeros((points + 1, 4))  # TN, FN, FP, TP at the first threshold from which they are kept
    counts[1:, 0], counts[1:, 1] = misses[:points], hits[:points]
    counts[1:, 2], counts[1:, 3] = misses[points:][::-1], hits[points:][::-1]
    return _from_counts(np.linspace(0, 1, points + 1), counts)


def _from_counts(thresholds: _Array, counts: _Array) -> FilteredOverlap:
    kept = counts.cumsum(0)
    negative, missed, wrong, positive = kept.T
    size = 2 * positive + missed + wrong
    dice = np.divide(2 * positive, size, out=np.ones_like(size), where=size > 0)
    lost = [1 - side / side[-1] if side[-1] else np.full_like(side, math.nan) for side in (positive, negative)]
    areas = [_area(dice), *(1 - (_area(side) if np.isfinite(side).all() else 0.0) for side in lost)]
    return FilteredOverlap(thresholds, dice, lost[0], lost[1], sum(areas) / 3)


def _area(values: Sequence[float] | _Array) -> float:
    """Area under a curve over equal steps from 0 to 1, by trapezia."""
    points = np.asarray(values)
    return float((points[1:] + points[:-1]).mean() / 2)
