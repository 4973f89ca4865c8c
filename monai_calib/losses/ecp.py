"""ECP: confident predictions pay for their lack of entropy."""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import Unpack

from . import fused
from .base import ConstrainedLoss, Options
from .cross_entropy import CrossEntropy
from .target import Target

__all__ = ["ECPLoss", "EntropyPenalty"]


class EntropyPenalty(nn.Module):
    """``s_k log s_k`` for every class: the negative entropy of the prediction, class by class."""

    def forward(self, logits: Tensor, target: Target | None) -> Tensor:
        log_prob = logits.log_softmax(1)
        return log_prob.exp() * log_prob

    def compiled(self, logits: Tensor, target: Target) -> fused.Term:
        """This penalty for the compiled sweep."""
        return fused.Term(fused.ENTROPY)


class ECPLoss(ConstrainedLoss):
    """Cross-entropy less the entropy of the prediction (explicit confidence penalty).

    ``CE - alpha * mean(-s_k log s_k)`` over voxels and classes, s = softmax(l).

    Args:
        alpha: weight of the entropy. The paper writes the entropy's sum over classes; like the segmentation authors'
            code, this is a mean.
        options: the arguments of :class:`ConstrainedLoss`.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``; returns a scalar, or ``(B, *spatial)`` with
    ``reduction="none"``.
    Source: Pereyra et al., ICLR workshop 2017; https://arxiv.org/abs/1701.06548

    Example:
        >>> import torch
        >>> loss = ECPLoss(alpha=0.1)
        >>> loss(torch.zeros(1, 2, 4), torch.zeros(1, 1, 4)).item()  # log 2 - 0.1 * (log 2) / 2
        0.6584...
    """

    def __init__(self, alpha: float = 0.1, **options: Unpack[Options]) -> None:
        super().__init__(CrossEntropy(), EntropyPenalty(), alpha, **options)
