"""Focal loss: cross-entropy in which voxels that are already right count less."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from .arguments import at_least
from .base import ConstrainedLoss, Options
from .cross_entropy import CrossEntropy
from .target import Target

__all__ = ["FocalCrossEntropy", "FocalLoss"]


class FocalCrossEntropy(nn.Module):
    """``-(1 - s_y)^gamma log s_y`` at every voxel; under a soft label the mean over its classes."""

    def __init__(self, gamma: float = 3.0) -> None:
        super().__init__()
        self.gamma = at_least("gamma", gamma, 0)

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        if target.soft is None:
            cross_entropy = CrossEntropy()(logits, target)
            # 1 - s_y without cancellation; the clamp keeps the slope of x^gamma finite at 0 for gamma < 1
            missing = -torch.expm1(-cross_entropy)
            return missing.clamp(min=1e-12) ** self.gamma * cross_entropy
        log_prob = logits.log_softmax(1)
        missing = -torch.expm1(log_prob)
        return target.at_label(-(missing.clamp(min=1e-12) ** self.gamma) * log_prob)


class FocalLoss(ConstrainedLoss):
    """Cross-entropy in which a voxel counts the less, the surer the network is of its label.

    ``mean(-(1 - s_y)^gamma log s_y)`` over voxels, s = softmax(l): the textbook scale. MONAI's ``FocalLoss`` with
    softmax averages over classes too and is 1/K of it.

    Args:
        gamma: how fast sure voxels fade; 0 is cross-entropy.
        options: the arguments of :class:`ConstrainedLoss`.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``; returns a scalar, or ``(B, *spatial)`` with
    ``reduction="none"``.
    Raises: ``ValueError`` if ``gamma`` is negative.
    Source: Lin et al., ICCV 2017 (https://arxiv.org/abs/1708.02002); for calibration: Mukhoti et al., NeurIPS 2020
    (https://arxiv.org/abs/2002.09437)

    Example:
        >>> loss = FocalLoss(gamma=2.0)
        >>> loss(torch.zeros(1, 2, 4), torch.zeros(1, 1, 4)).item()  # (1/2)^2 log 2
        0.1732...
    """

    def __init__(self, gamma: float = 3.0, **options: Unpack[Options]) -> None:
        super().__init__(FocalCrossEntropy(gamma), **options)
