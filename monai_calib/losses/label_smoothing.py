"""Label smoothing: cross-entropy against labels mixed with the uniform distribution."""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import Unpack

from . import fused
from .arguments import within
from .base import ConstrainedLoss, Options
from .cross_entropy import CrossEntropy
from .target import Target

__all__ = ["LabelSmoothingLoss", "SmoothingPenalty"]


class SmoothingPenalty(nn.Module):
    """``l_y - l_k`` for every class: what uniform label smoothing adds to cross-entropy.

    ``(1 - alpha) CE + alpha mean_k(-log s_k) = CE + alpha mean_k(l_y - l_k)``, since the log-partition cancels: label
    smoothing pulls every logit towards the true one, with the same force at any distance.
    """

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        return target.at_label(logits).unsqueeze(1) - logits

    def compiled(self, logits: Tensor, target: Target) -> fused.Term:
        """This penalty for the compiled sweep."""
        return fused.Term(fused.SMOOTHING)


class LabelSmoothingLoss(ConstrainedLoss):
    """Cross-entropy against labels mixed with the uniform distribution.

    ``(1 - alpha) CE + alpha mean_k(-log softmax(l)_k)``, the true class included in the uniform part. With
    ``weight`` a voxel weighs what its label does; ``torch.nn.functional.cross_entropy(weight=w, label_smoothing=a)``
    weighs the uniform part class by class, which is another loss.

    Args:
        alpha: share of the uniform distribution, 0 to 1.
        options: the arguments of :class:`ConstrainedLoss`.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``; returns a scalar, or ``(B, *spatial)`` with
    ``reduction="none"``.
    Raises: ``ValueError`` if ``alpha`` is not within 0 to 1.
    Source: Szegedy et al., CVPR 2016; https://arxiv.org/abs/1512.00567

    Example:
        >>> import torch
        >>> loss = LabelSmoothingLoss(alpha=0.1)
        >>> logits, label = torch.tensor([[[2.0], [0.0]]]), torch.zeros(1, 1, 1)
        >>> loss(logits, label).item()  # 0.1269 + 0.1 * (0 + 2) / 2
        0.2269...
    """

    def __init__(self, alpha: float = 0.1, **options: Unpack[Options]) -> None:
        super().__init__(CrossEntropy(), SmoothingPenalty(), within("alpha", alpha, 0, 1), **options)
