"""ACLS: the winning logit and the losing ones are smoothed differently, and only beyond a margin."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from .arguments import at_least
from .base import ConstrainedLoss, Options
from .cross_entropy import CrossEntropy
from .target import Target

__all__ = ["ACLSLoss", "ConditionalPenalty"]


class ConditionalPenalty(nn.Module):
    """``relu(l_k - margin)^2`` for the winning logit, ``relu(max_j l_j - l_k - margin)^2`` for every losing one.

    The maximum is a constant in the losing part. Scaled by the number of classes, so that the mean over them is
    ``pos_lambda * winning + neg_lambda * mean over the losing classes``.
    """

    def __init__(self, pos_lambda: float = 1.0, neg_lambda: float = 0.1, margin: float = 10.0) -> None:
        super().__init__()
        self.pos_lambda = at_least("pos_lambda", pos_lambda, 0)
        self.neg_lambda = at_least("neg_lambda", neg_lambda, 0)
        self.margin = at_least("margin", margin, 0)

    def forward(self, logits: Tensor, target: Target | None) -> Tensor:
        classes = logits.shape[1]
        winning = logits.detach().amax(1, keepdim=True)
        over = self.pos_lambda * torch.relu(logits - self.margin) ** 2
        under = self.neg_lambda * torch.relu(winning - logits - self.margin) ** 2
        return classes * torch.where(logits == winning, over, under / (classes - 1))


class ACLSLoss(ConstrainedLoss):
    """Cross-entropy with smoothing that adapts to the logits and sets in beyond a margin (ACLS).

    ``CE + alpha * mean(pos_lambda * relu(l_w - margin)^2 + neg_lambda * mean_{k != w} relu(l_w - l_k - margin)^2)``
    over voxels, w the winning class, l_w constant in the second term: the winner comes down, the losers come up, the
    harder the further out they are. As in the authors' code the first term reads the winning logit itself, so unlike
    the other penalties on distances it changes when a constant is added to all logits.

    Args:
        pos_lambda: weight of the winning logit's term.
        neg_lambda: weight of the losing logits' term.
        margin: in logits.
        alpha: weight of the penalty.
        options: the arguments of :class:`ConstrainedLoss`.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``; returns a scalar, or ``(B, *spatial)`` with
    ``reduction="none"``.
    Raises: ``ValueError`` for a negative weight or margin.
    Source: Park et al., ICCV 2023; https://arxiv.org/abs/2308.11911

    Example:
        >>> loss = ACLSLoss(margin=1.0, alpha=0.1)
        >>> logits, label = torch.tensor([[[3.0], [0.0]]]), torch.zeros(1, 1, 1)
        >>> loss(logits, label).item()  # 0.0486 + 0.1 * (1.0 * 2^2 + 0.1 * 2^2)
        0.4885...
    """

    def __init__(
        self,
        pos_lambda: float = 1.0,
        neg_lambda: float = 0.1,
        margin: float = 10.0,
        alpha: float = 0.1,
        **options: Unpack[Options],
    ) -> None:
        penalty = ConditionalPenalty(pos_lambda, neg_lambda, margin)
        super().__init__(CrossEntropy(), penalty, alpha, **options)
