"""Dice losses that do not reward confidence in what is wrong: DSC++, and the Dice semimetric for soft labels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from typing_extensions import Unpack

from .base import Options
from .cross_entropy import CrossEntropy
from .semimetric import SMOOTH, dice_semimetric
from .statistic import StatisticLoss, known
from .target import Target

__all__ = ["DSCPlusPlus", "DSCPlusPlusLoss", "DiceSemimetric", "DiceSemimetricLoss"]


class DSCPlusPlus(nn.Module):
    """``1 - mean_{B,K} (2 TP + e) / (2 TP + sum ((1 - s) y)^gamma + sum (s (1 - y))^gamma + e)``; 0 without voxels."""

    def __init__(self, gamma: float = 2.0, include_background: bool = True) -> None:
        super().__init__()
        if not gamma >= 1:
            raise ValueError(f"gamma must be at least 1, got {gamma}.")
        self.gamma = gamma
        self.include_background = include_background

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        first = 0 if self.include_background else 1
        prob = logits.softmax(1)[:, first:].flatten(2)
        truth = target.one_hot(prob.dtype)[:, first:].flatten(2)
        weight = known(target, prob).flatten(1).unsqueeze(1)
        hit = 2 * (weight * prob * truth).sum(2)
        missed = (weight * ((1 - prob) * truth) ** self.gamma).sum(2)
        false = (weight * (prob * (1 - truth)) ** self.gamma).sum(2)
        rows = (missed + false) / (hit + missed + false + SMOOTH)
        return rows.sum() / max(rows.numel(), 1)


class DSCPlusPlusLoss(StatisticLoss):
    """Soft Dice loss whose false positives and false negatives are raised to a power voxel by voxel (DSC++).

    ``1 - mean_{B,K} (2 TP + e) / (2 TP + FN + FP + e)`` with ``TP = sum s y``, ``FN = sum ((1 - s) y)^gamma``,
    ``FP = sum (s (1 - y))^gamma``, s = softmax(l), e = 1e-5. With a gamma above 1 a prediction that is a little unsure
    costs little, so the loss stops pushing every probability to 0 or 1. With ``gamma=1`` it is the soft Dice loss.

    Args:
        gamma: how fast small errors fade, at least 1.
        alpha: weight of the Dice loss.
        kernel_size: window that tells outer voxels, read with ``penalty_region="outer"`` only.
        options: the arguments of :class:`ConstrainedLoss`; ``lambda_ce`` is 0 unless it is given.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``; returns a scalar.
    Raises: ``ValueError`` if ``gamma`` is below 1, and for ``reduction="none"``.
    Source: Yeung et al., Journal of Digital Imaging 2023; https://arxiv.org/abs/2111.00528

    Example:
        >>> import torch
        >>> loss = DSCPlusPlusLoss(gamma=2.0)
        >>> loss(torch.zeros(1, 2, 4), torch.zeros(1, 1, 4)).item()  # (1 / (4 + 1) + 1) / 2, e left out
        0.5999...
    """

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float = 1.0,
        kernel_size: int | Sequence[int] = 3,
        **options: Unpack[Options],
    ) -> None:
        options.setdefault("lambda_ce", 0.0)
        penalty = DSCPlusPlus(gamma, options.get("include_background", True))
        super().__init__(CrossEntropy(), penalty, alpha, kernel_size=kernel_size, **options)


class DiceSemimetric(nn.Module):
    """Mean over images and classes of :func:`~.semimetric.dice_semimetric`; 0 without images."""

    def __init__(self, include_background: bool = True) -> None:
        super().__init__()
        self.include_background = include_background

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        first = 0 if self.include_background else 1
        prob = logits.softmax(1)
        truth = target.one_hot(prob.dtype)
        rows = dice_semimetric(prob[:, first:], truth[:, first:], known(target, prob))
        return rows.sum() / max(rows.numel(), 1)


class DiceSemimetricLoss(StatisticLoss):
    """Soft Dice loss that is lowest at the label itself, for labels that are soft (Dice semimetric, DML).

    ``mean_{B,K} 1 - (|s| + |y| - |s - y| + e) / (|s| + |y| + e)``, ``|.|`` the sum over voxels, s = softmax(l),
    e = 1e-5. On hard labels it is the soft Dice loss. On soft ones, such as the mean of several raters, the soft Dice
    loss pushes every probability to 0 or 1, and this one to the label.

    Args:
        alpha: weight of the Dice loss.
        kernel_size: window that tells outer voxels, read with ``penalty_region="outer"`` only.
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

    def __init__(self, alpha: float = 1.0, kernel_size: int | Sequence[int] = 3, **options: Unpack[Options]) -> None:
        options.setdefault("lambda_ce", 0.0)
        penalty = DiceSemimetric(options.get("include_background", True))
        super().__init__(CrossEntropy(), penalty, alpha, kernel_size=kernel_size, **options)
