"""Focal loss: cross-entropy in which voxels that are already right count less."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from .arguments import at_least
from .base import ConstrainedLoss, Options
from .cross_entropy import CrossEntropy
from .target import Target

__all__ = ["FocalCrossEntropy", "FocalLoss", "focal_cross_entropy"]


def focal_cross_entropy(logits: Tensor, target: Target, gamma: float | Tensor) -> Tensor:
    """``-(1 - s_y)^gamma log s_y`` at every voxel, gamma one number or one a voxel; under a soft label its mean."""
    soft = target.soft is not None
    surprise = -logits.log_softmax(1) if soft else CrossEntropy()(logits, target)
    if soft and isinstance(gamma, Tensor):
        gamma = gamma.unsqueeze(1)
    # 1 - s without cancellation; the clamp keeps the slope of x^gamma finite at 0 for gamma < 1
    value = (-torch.expm1(-surprise)).clamp(min=1e-12) ** gamma * surprise
    return target.at_label(value) if soft else value


class FocalCrossEntropy(nn.Module):
    """:func:`focal_cross_entropy` with one gamma."""

    def __init__(self, gamma: float = 3.0) -> None:
        super().__init__()
        self.gamma = at_least("gamma", gamma, 0)

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        return focal_cross_entropy(logits, target, self.gamma)


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
