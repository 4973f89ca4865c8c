"""MbLS: the distances between logits stay within a margin."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from . import fused
from .arguments import at_least, one_of
from .base import ConstrainedLoss, Options
from .cross_entropy import CrossEntropy
from .target import Target

__all__ = ["DISTANCES", "MarginPenalty", "MbLSLoss"]

DISTANCES = ("l1", "l2")


class MarginPenalty(nn.Module):
    """``relu(max_j l_j - l_k - margin)`` for every class, or its square.

    Example:
        >>> MarginPenalty(margin=1.0)(torch.tensor([[[3.0], [1.0]]]), None)
        tensor([[[0.],
                 [1.]]])
    """

    def __init__(self, margin: float = 10.0, distance_type: str = "l1") -> None:
        super().__init__()
        self.margin = at_least("margin", margin, 0)
        self.distance_type = one_of("distance_type", distance_type, DISTANCES)

    def forward(self, logits: Tensor, target: Target | None) -> Tensor:
        excess = torch.relu(logits.max(1, keepdim=True).values - logits - self.margin)
        return excess if self.distance_type == "l1" else excess * excess

    def compiled(self, logits: Tensor, target: Target) -> fused.Term:
        """This penalty for the compiled sweep."""
        return fused.Term(fused.MARGIN_L1 if self.distance_type == "l1" else fused.MARGIN_L2, self.margin)


class MbLSLoss(ConstrainedLoss):
    """Cross-entropy with a margin on the distances between logits (MbLS).

    Keeps the winning logit at most ``margin`` above every other one, instead of pushing it away without end:
    ``CE + alpha * mean(relu(max_j l_j - l_k - margin))`` over voxels and classes.

    Args:
        margin: largest free distance between the winning logit and another, in logits. 0 gives a label-smoothing-like
            pull to uniform. The authors' default is 10; their segmentation runs often use 5.
        alpha: weight of the penalty. The papers write a sum over classes; like their code, this is a mean.
        distance_type: ``"l1"`` for the linear hinge, ``"l2"`` for the squared hinge (hinge first, then square).
        options: the arguments of :class:`ConstrainedLoss`.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``; returns a scalar, or ``(B, *spatial)`` with
    ``reduction="none"``.
    Raises: ``ValueError`` if ``margin`` is negative; see :class:`ConstrainedLoss` for the checks on the input.
    Source: Liu et al., CVPR 2022, https://arxiv.org/abs/2111.15430; for segmentation Murugesan et al., Medical Image
    Analysis 2023, https://arxiv.org/abs/2209.09641

    Example:
        >>> loss = MbLSLoss(margin=5.0)
        >>> loss(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)).item()  # equal logits: plain cross-entropy, log 3
        1.0986...
    """

    def __init__(
        self,
        margin: float = 10.0,
        alpha: float = 0.1,
        distance_type: str = "l1",
        **options: Unpack[Options],
    ) -> None:
        penalty = MarginPenalty(margin, distance_type)
        super().__init__(CrossEntropy(), penalty, alpha, **options)
