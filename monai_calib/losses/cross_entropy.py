"""Cross-entropy, alone or with Dice: what the calibration losses start from and are compared with."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from .base import ConstrainedLoss, Options
from .target import Target

__all__ = ["CrossEntropy", "CrossEntropyLoss"]


class CrossEntropy(nn.Module):
    """``-sum_k t_k log softmax(l)_k`` at every voxel."""

    compiled = True
    """Part of the compiled sweep of :mod:`.fused`."""

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        truth = target.index.long() if target.soft is None else target.soft
        return F.cross_entropy(logits, truth, reduction="none")


class CrossEntropyLoss(ConstrainedLoss):
    """Cross-entropy; with ``lambda_dice=1`` the Dice + CE of most segmentation networks.

    ``lambda_ce * mean(-log softmax(l)_y) + lambda_dice * Dice``, with the input handling of the calibration losses, so
    that a comparison differs in the penalty and in nothing else.

    Args:
        options: the arguments of :class:`ConstrainedLoss`.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``; returns a scalar, or ``(B, *spatial)`` with
    ``reduction="none"``.

    Example:
        >>> import torch
        >>> CrossEntropyLoss()(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)).item()  # log 3
        1.0986...
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__(CrossEntropy(), **options)
