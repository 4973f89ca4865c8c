"""FLSD: focal loss with an exponent that depends on the probability of the label."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from .arguments import at_least, within
from .base import ConstrainedLoss, Options
from .focal import focal_cross_entropy
from .target import Target

__all__ = ["FLSDLoss", "SampleFocalCrossEntropy"]

_BETWEEN, _LIKELY = 3.0, 0.5
"""Exponent of the authors' code between the threshold and this probability, whatever gamma is."""


class SampleFocalCrossEntropy(nn.Module):
    """Focal cross-entropy whose gamma depends on the probability of the label at the voxel."""

    def __init__(self, gamma: float = 3.0, gamma_unsure: float = 5.0, threshold: float = 0.2) -> None:
        super().__init__()
        self.gamma = at_least("gamma", gamma, 0)
        self.gamma_unsure = at_least("gamma_unsure", gamma_unsure, 0)
        self.threshold = within("threshold", threshold, 0, 1)

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        prob = target.at_label(logits.detach().softmax(1))
        gamma = torch.full_like(prob, self.gamma)
        gamma = gamma.masked_fill(prob < _LIKELY, _BETWEEN).masked_fill(prob < self.threshold, self.gamma_unsure)
        return focal_cross_entropy(logits, target, gamma)


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
