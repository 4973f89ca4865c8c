"""MEEP: where the network is wrong it should be unsure."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from typing_extensions import Unpack

from .base import Options
from .cross_entropy import CrossEntropy
from .statistic import StatisticLoss, known
from .target import Target

__all__ = ["ErroneousConfidence", "MEEPLoss"]


class ErroneousConfidence(nn.Module):
    """Mean negative entropy ``sum_k s_k log s_k`` over the misclassified voxels; 0 if there is none."""

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        wrong = known(target, logits) * (logits.argmax(1) != target.index)
        log_prob = logits.log_softmax(1)
        negentropy = (log_prob.exp() * log_prob).sum(1)
        return (negentropy * wrong).sum() / wrong.sum().clamp(min=1)


class MEEPLoss(StatisticLoss):
    """Cross-entropy less the entropy of the predictions that are wrong (maximum entropy on erroneous predictions).

    ``CE - alpha * mean_{misclassified} H(s)``, ``H(s) = -sum_k s_k log s_k``, s = softmax(l). Unlike
    :class:`ECPLoss` it leaves confident predictions alone where they are right. Under a soft label a voxel is wrong if
    the likeliest classes differ.

    Args:
        alpha: weight of the entropy, a sum over classes.
        kernel_size: window that tells outer voxels, read with ``penalty_region="outer"`` only.
        options: the arguments of :class:`ConstrainedLoss`.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``; returns a scalar.
    Raises: ``ValueError`` for ``reduction="none"``.
    Source: Larrazabal et al., MICCAI 2023; https://arxiv.org/abs/2112.12218

    Example:
        >>> import torch
        >>> loss = MEEPLoss(alpha=0.3)
        >>> loss(torch.zeros(1, 2, 4), torch.ones(1, 1, 4)).item()  # all wrong, all unsure: log 2 - 0.3 * log 2
        0.4852...
    """

    def __init__(self, alpha: float = 0.3, kernel_size: int | Sequence[int] = 3, **options: Unpack[Options]) -> None:
        super().__init__(CrossEntropy(), ErroneousConfidence(), alpha, kernel_size=kernel_size, **options)
