"""Dice coefficients of class numbers, and their description as a metric."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from monai_calib.metrics.metric import Metric

__all__ = ["dice_coefficients", "mean_dice"]


def mean_dice(classes: Sequence[str]) -> Metric:
    """The metric that MONAI's ``MeanDice`` leaves in a bundle's evaluation, per foreground class.

    Args:
        classes: names of the channels, background first.
    """
    return Metric("mean_dice", "dice", per="class", classes=tuple(classes[1:]), label="DSC", direction=1)


def dice_coefficients(
    predicted: torch.Tensor, label: torch.Tensor, num_classes: int, counted: torch.Tensor | None = None
) -> list[float]:
    """Dice coefficient ``2 |P n L| / (|P| + |L|)`` of each foreground class, NaN for one that the label does not hold.

    Args:
        predicted, label: class numbers ``(*spatial)``.
        num_classes: background included.
        counted: bool ``(*spatial)``, voxels that count; all by default.

    Example:
        >>> dice_coefficients(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 0, 0]), 3)
        [0.666..., nan]
    """
    if counted is not None:
        predicted, label = predicted[counted], label[counted]
    found = []
    for k in range(1, num_classes):
        truth, guess = label == k, predicted == k
        size = int(truth.sum())
        found.append(2 * int((truth & guess).sum()) / (size + int(guess.sum())) if size else math.nan)
    return found
