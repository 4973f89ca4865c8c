"""DSC++: a Dice loss that does not push every probability to 0 or 1."""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import Unpack

from .arguments import at_least
from .base import Options, StatisticLoss
from .cross_entropy import CrossEntropy
from .soft_dice import SMOOTH
from .target import Target

__all__ = ["DSCPlusPlus", "DSCPlusPlusLoss"]


class DSCPlusPlus(nn.Module):
    """``1 - mean_{B,K} (2 TP + e) / (2 TP + sum ((1 - s) y)^gamma + sum (s (1 - y))^gamma + e)``; 0 without voxels."""

    def __init__(self, gamma: float = 2.0, include_background: bool = True) -> None:
        super().__init__()
        self.gamma = at_least("gamma", gamma, 1)
        self.include_background = include_background

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        first = 0 if self.include_background else 1
        prob = logits.softmax(1)[:, first:].flatten(2)
        truth = target.one_hot(prob.dtype)[:, first:].flatten(2)
        weight = target.known(prob.dtype).flatten(1).unsqueeze(1)
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
        **options: Unpack[Options],
    ) -> None:
        options.setdefault("lambda_ce", 0.0)
        penalty = DSCPlusPlus(gamma, options.get("include_background", True))
        super().__init__(CrossEntropy(), penalty, alpha, **options)
