"""Focal loss and its sample-dependent form: what is already right counts less."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from .base import ConstrainedLoss, Options
from .cross_entropy import CrossEntropy
from .target import Target

__all__ = ["FLSDLoss", "FocalCrossEntropy", "FocalLoss", "SampleFocalCrossEntropy"]


class FocalCrossEntropy(nn.Module):
    """``-(1 - s_y)^gamma log s_y`` at every voxel; under a soft label the mean over its classes."""

    def __init__(self, gamma: float = 3.0) -> None:
        super().__init__()
        if not gamma >= 0:
            raise ValueError(f"gamma must not be negative, got {gamma}.")
        self.gamma = gamma

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


_BETWEEN, _LIKELY = 3.0, 0.5
"""Exponent of the authors' code between the threshold and this probability, whatever gamma is."""


class SampleFocalCrossEntropy(nn.Module):
    """Focal cross-entropy whose gamma depends on the probability of the label at the voxel."""

    def __init__(self, gamma: float = 3.0, gamma_unsure: float = 5.0, threshold: float = 0.2) -> None:
        super().__init__()
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold is a probability and must be within 0 to 1, got {threshold}.")
        self.sure = FocalCrossEntropy(gamma)
        self.between = FocalCrossEntropy(_BETWEEN)
        self.unsure = FocalCrossEntropy(gamma_unsure)
        self.threshold = threshold

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        prob = target.at_label(logits.detach().softmax(1))
        likely = torch.where(prob < _LIKELY, self.between(logits, target), self.sure(logits, target))
        return torch.where(prob < self.threshold, self.unsure(logits, target), likely)


class FLSDLoss(ConstrainedLoss):
    """Focal loss with a larger gamma where the label is thought unlikely (sample-dependent focal loss, FLSD-53).

    ``mean(-(1 - s_y)^g log s_y)`` over voxels, s = softmax(l), g = ``gamma_unsure`` where ``s_y < threshold``, else 3
    where ``s_y < 0.5``, else ``gamma``, as in the authors' code. Under a soft label s_y is its mean probability.

    Args:
        gamma: exponent at likely labels.
        gamma_unsure: exponent at unlikely labels.
        threshold: probability of the label that tells them apart.
        options: the arguments of :class:`ConstrainedLoss`.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``; returns a scalar, or ``(B, *spatial)`` with
    ``reduction="none"``.
    Raises: ``ValueError`` for a negative gamma, a threshold that is not a probability.
    Source: Mukhoti et al., NeurIPS 2020; https://arxiv.org/abs/2002.09437

    Example:
        >>> loss = FLSDLoss()
        >>> loss(torch.zeros(1, 10, 4), torch.zeros(1, 1, 4)).item()  # 0.1 < 0.2: 0.9^5 log 10
        1.3596...
    """

    def __init__(
        self,
        gamma: float = 3.0,
        gamma_unsure: float = 5.0,
        threshold: float = 0.2,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(SampleFocalCrossEntropy(gamma, gamma_unsure, threshold), **options)
