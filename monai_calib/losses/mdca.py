"""MDCA: in every batch the mean confidence in a class is the class's frequency."""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import Unpack

from .base import Options, StatisticLoss
from .cross_entropy import CrossEntropy
from .target import Target

__all__ = ["FrequencyGap", "MDCALoss"]


class FrequencyGap(nn.Module):
    """``mean_k |mean s_k - mean y_k|``, the inner means over the known voxels of the batch."""

    def __init__(self, include_background: bool = True) -> None:
        super().__init__()
        self.include_background = include_background

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        weight = target.known(logits.dtype).unsqueeze(1)
        gap = logits.softmax(1) - target.one_hot(logits.dtype)
        per_class = (gap * weight).sum((0, *range(2, gap.ndim))) / weight.sum().clamp(min=1)
        if not self.include_background:
            per_class = per_class[1:]
        return per_class.abs().sum() / max(len(per_class), 1)


class MDCALoss(StatisticLoss):
    """Cross-entropy plus the difference between mean confidence and frequency of every class (MDCA).

    ``CE + alpha * mean_k |mean s_k - mean y_k|``, s = softmax(l), the inner means over all voxels of the batch.

    Args:
        alpha: weight of the difference.
        options: the arguments of :class:`ConstrainedLoss`; ``include_background=False`` leaves class 0 out of the mean.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``; returns a scalar.
    Raises: ``ValueError`` for ``reduction="none"``.
    Source: Hebbalaguppe et al., CVPR 2022; https://arxiv.org/abs/2203.13834

    Example:
        >>> import torch
        >>> loss = MDCALoss(lambda_ce=0.0)
        >>> loss(torch.zeros(1, 2, 4), torch.zeros(1, 1, 4)).item()  # (|0.5 - 1| + |0.5 - 0|) / 2
        0.5
    """

    def __init__(self, alpha: float = 1.0, **options: Unpack[Options]) -> None:
        penalty = FrequencyGap(options.get("include_background", True))
        super().__init__(CrossEntropy(), penalty, alpha, **options)
