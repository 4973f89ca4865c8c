"""LogitNorm: confidence comes from the direction of the logits, not from their length."""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import Unpack

from .arguments import above
from .base import ConstrainedLoss, Options
from .cross_entropy import CrossEntropy
from .target import Target

__all__ = ["LogitNormLoss", "NormalizedCrossEntropy"]


class NormalizedCrossEntropy(nn.Module):
    """Cross-entropy of ``l / (temperature (|l| + 1e-7))`` at every voxel."""

    def __init__(self, temperature: float = 0.04) -> None:
        super().__init__()
        self.temperature = above("temperature", temperature, 0)
        self.cross_entropy = CrossEntropy()

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        # vector_norm across the leading axis takes fifty times as long on a CPU; the clamp keeps its slope of 0 at 0
        length = logits.square().sum(1, keepdim=True).clamp(min=1e-30).sqrt()
        return self.cross_entropy(logits / (self.temperature * (length + 1e-7)), target)


class LogitNormLoss(ConstrainedLoss):
    """Cross-entropy of logits scaled to one length (LogitNorm).

    ``mean(-log softmax(l / (temperature |l|))_y)``: growing all logits changes nothing, so training does not make them
    grow without end. Dice and penalties of other losses joined to it read the logits as they are.

    Args:
        temperature: the smaller, the more confident the normalised prediction can be; logits of unit length and K
            classes reach at most ``1 / (1 + (K - 1) exp(-sqrt(K / (K - 1)) / temperature))``. 0.04 is the paper's
            value for CIFAR-10; the authors' repository names 0.01 in its README.
        options: the arguments of :class:`ConstrainedLoss`.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``; returns a scalar, or ``(B, *spatial)`` with
    ``reduction="none"``.
    Raises: ``ValueError`` if ``temperature`` is not positive.
    Source: Wei et al., ICML 2022; https://arxiv.org/abs/2205.09310

    Example:
        >>> import torch
        >>> loss = LogitNormLoss(temperature=1.0)
        >>> loss(torch.tensor([[[3.0], [-4.0]]]), torch.zeros(1, 1, 1)).item()  # softplus(-0.8 - 0.6)
        0.2204...
    """

    def __init__(self, temperature: float = 0.04, **options: Unpack[Options]) -> None:
        super().__init__(NormalizedCrossEntropy(temperature), **options)
