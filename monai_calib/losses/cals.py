"""CALS: margins on the logit distances with one learnt weight per class."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import Unpack

from .adaptive import AdaptivePenalty
from .base import ConstrainedLoss, Options
from .cross_entropy import CrossEntropy
from .target import Target

__all__ = ["CALSLoss", "DistancePenalty"]


class DistancePenalty(AdaptivePenalty):
    """Constraints of CALS: ``(max_j l_j - l_k) / margin - 1``, negative while the distance is within the margin."""

    def __init__(
        self,
        margin: float = 10.0,
        penalty_function: str = "phr",
        multiplier: float = 1e-6,
        rho: float = 1.0,
        num_classes: int | None = None,
    ) -> None:
        super().__init__(penalty_function, multiplier, rho, num_classes, margin)

    def constraint(self, logits: Tensor, target: Target, outer: Tensor | None) -> Tensor:
        return (logits.amax(1, keepdim=True) - logits) / self.margin - 1


class CALSLoss(ConstrainedLoss):
    """Cross-entropy with margins on the logit distances whose weights are learnt per class (CALS).

    MbLS with a multiplier a class: ``CE + alpha * mean(P(h_k, multiplier_k, rho_k))`` over voxels and classes,
    ``h_k = (max_j l_j - l_k) / margin - 1``, P one of :data:`~monai_calib.losses.lagrangian.PENALTY_LAGRANGIANS`.
    Multipliers and rho are updated after every validation by :class:`~monai_calib.handlers.MultiplierHandler`.

    Args:
        margin: largest free distance between the winning logit and another, in logits.
        penalty_function: ``"phr"``, ``"p2"`` (the default of the authors' class) or ``"p3"``.
        multiplier: first value of every multiplier.
        rho: first value of every rho.
        num_classes: K; without it, read from the first batch (give it for ``torch.compile``).
        alpha: weight of the whole penalty; 1, since the multipliers are the weights.
        options: the arguments of :class:`ConstrainedLoss`.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``; returns a scalar, or ``(B, *spatial)`` with
    ``reduction="none"``. The state has ``(1, K)`` multipliers.
    Raises: ``ValueError`` for an unknown name, a first value or margin that is not positive, another number of classes
    than the multipliers are for.
    Source: Liu et al., CVPR 2023; https://arxiv.org/abs/2211.15088

    Example:
        >>> import torch
        >>> loss = CALSLoss(margin=1.0, multiplier=0.2, rho=1.0)
        >>> logits, label = torch.tensor([[[3.0], [0.0]]]), torch.zeros(1, 1, 1)
        >>> loss(logits, label).item()  # 0.0486 + ((0 - 0.2^2) / 2 + (2.2^2 - 0.2^2) / 2) / 2
        1.2385...
    """

    penalty: DistancePenalty

    def __init__(
        self,
        margin: float = 10.0,
        penalty_function: str = "phr",
        multiplier: float = 1e-6,
        rho: float = 1.0,
        num_classes: int | None = None,
        alpha: float = 1.0,
        **options: Unpack[Options],
    ) -> None:
        penalty = DistancePenalty(margin, penalty_function, multiplier, rho, num_classes)
        super().__init__(CrossEntropy(), penalty, alpha, **options)
