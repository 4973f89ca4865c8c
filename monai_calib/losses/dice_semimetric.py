"""Dice semimetric: the soft Dice loss on hard labels, and lowest at the label itself on soft ones."""

from __future__ import annotations

from typing_extensions import Unpack

from .base import Options, StatisticLoss
from .cross_entropy import CrossEntropy
from .soft_dice import SoftDice

__all__ = ["DiceSemimetricLoss"]


class DiceSemimetricLoss(StatisticLoss):
    """Soft Dice loss that is lowest at the label itself, for labels that are soft (Dice semimetric, DML).

    ``mean_{B,K} 1 - (|s| + |y| - |s - y| + e) / (|s| + |y| + e)``, ``|.|`` the sum over voxels, s = softmax(l),
    e = 1e-5. On hard labels it is the soft Dice loss. On soft ones, such as the mean of several raters, the soft Dice
    loss pushes every probability to 0 or 1, and this one to the label.

    Args:
        alpha: weight of the Dice loss.
        options: the arguments of :class:`ConstrainedLoss`; ``lambda_ce`` is 0 unless it is given.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``, or one-hot or soft ``(B, K, *spatial)``; returns a
    scalar.
    Raises: ``ValueError`` for ``reduction="none"``.
    Source: Wang et al., MICCAI 2023; https://arxiv.org/abs/2303.16296

    Example:
        >>> import torch
        >>> label = torch.tensor([[[0.6], [0.4]]])
        >>> abs(DiceSemimetricLoss()(label.log(), label).item()) < 1e-6
        True
    """

    def __init__(self, alpha: float = 1.0, **options: Unpack[Options]) -> None:
        options.setdefault("lambda_ce", 0.0)
        penalty = SoftDice(options.get("include_background", True))
        super().__init__(CrossEntropy(), penalty, alpha, **options)
