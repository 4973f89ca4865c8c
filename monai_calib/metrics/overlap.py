"""Dice coefficients of class numbers, those to be expected of probabilities, and their descriptions as metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from monai_calib.labels import top_class
from monai_calib.metrics.metric import Metric

__all__ = ["dice_coefficients", "expected_dice_coefficients", "expected_dice_metric", "mean_dice"]


def mean_dice(classes: Sequence[str]) -> Metric:
    """The metric that MONAI's ``MeanDice`` leaves in a bundle's evaluation, per foreground class.

    Args:
        classes: names of the channels, background first.
    """
    return Metric("mean_dice", "dice", per="class", classes=tuple(classes[1:]), label="DSC", direction=1)


def expected_dice_metric(classes: Sequence[str]) -> Metric:
    """The metric of :func:`expected_dice_coefficients`, per foreground class; neither small nor large is better.

    Args:
        classes: names of the channels, background first.
    """
    return Metric("expected_dice", "expected_dice", per="class", classes=tuple(classes[1:]), label="expected DSC")


def expected_dice_coefficients(inside: torch.Tensor, volumes: Sequence[float]) -> list[float]:
    """Expected Dice of each structure of a prediction, ``2 sum_S p / (|S| + sum p)``, without ground truth.

    ``S`` are the voxels where the structure's probability is the largest.

    Args:
        inside: probabilities ``(K, n)`` of the voxels whose largest probability is not the background's.
        volumes: summed probability of the K - 1 foreground classes over the whole volume.

    Returns: K - 1 numbers; NaN where nothing is predicted and less than half a voxel is expected.

    Example:
        >>> p = torch.tensor([0.9, 0.8])
        >>> round(expected_dice_coefficients(torch.stack([1 - p, p]), [1.8])[0], 3)  # 2 * 1.7 / (2 + 1.8)
        0.895
    """
    # on the CPU, where sums are the same each time; what is inside is small, and its sums are asked for at once
    label, best = top_class(inside).cpu().long(), inside.amax(0).cpu().double()
    size = torch.bincount(label, minlength=len(inside)).tolist()[1:]
    summed = torch.bincount(label, best, minlength=len(inside)).tolist()[1:]
    return [
        math.nan if not found and volume < 0.5 else 2 * probability / (found + volume)
        for found, probability, volume in zip(size, summed, volumes, strict=True)
    ]


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
