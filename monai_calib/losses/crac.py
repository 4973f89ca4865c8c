"""CRaC: NACL with one learnt weight per class and region."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import Unpack

from .adaptive import AdaptivePenalty
from .arguments import one_of
from .base import ConstrainedLoss, SharedOptions
from .cross_entropy import CrossEntropy
from .neighborhood import PADDINGS
from .target import Target

__all__ = ["CRaCLoss", "RegionPenalty"]


class RegionPenalty(AdaptivePenalty):
    """Constraints of CRaC: ``|margin * tau_k - l_k|`` on inner voxels, ``|tau_k - l_k|`` on outer ones."""

    regions = ("inner", "outer")

    def __init__(
        self,
        margin: float = 5.0,
        penalty_function: str = "phr",
        multiplier: float = 1e-6,
        rho: float = 0.1,
        num_classes: int | None = None,
        kernel_size: int | Sequence[int] = 3,
        padding: str = "replicate",
    ) -> None:
        super().__init__(penalty_function, multiplier, rho, num_classes, margin)
        self.kernel_size = kernel_size
        self.padding = one_of("padding", padding, PADDINGS)

    def outer(self, target: Target) -> Tensor:
        return target.outer(self.kernel_size)

    def constraint(self, logits: Tensor, target: Target, outer: Tensor | None) -> Tensor:
        assert outer is not None
        tau = target.proportions(logits.dtype, kernel_size=self.kernel_size, padding=self.padding)
        return (torch.where(outer.unsqueeze(1), tau, self.margin * tau) - logits).abs()


class CRaCLoss(ConstrainedLoss):
    """Cross-entropy with neighbourhood constraints whose weights are learnt per class and region (CRaC).

    NACL in two regions: where one label fills the window the logits follow ``margin * tau``, elsewhere ``tau``:
    ``CE + alpha * mean(P(h, multiplier, rho))`` over voxels and the 2K constraints, one a class and region:
    ``h = |margin * tau_k - l_k|`` on inner voxels, ``|tau_k - l_k|`` on outer ones, 0 outside its region, as in the
    authors' code. P is one of :data:`~monai_calib.losses.lagrangian.PENALTY_LAGRANGIANS`. Each constraint has a
    multiplier and a rho, updated after every validation by :class:`~monai_calib.handlers.MultiplierHandler`. Without
    that handler they keep their first values: ``p2`` and ``p3`` are then next to nothing, but ``phr`` is a quadratic
    penalty of weight ``rho / 2``.

    Args:
        margin: logit that inner voxels have for their label, in logits.
        penalty_function: ``"phr"`` (the paper), ``"p2"`` or ``"p3"``.
        multiplier: first value of every multiplier.
        rho: first value of every rho.
        num_classes: K; without it, read from the first batch (give it for ``torch.compile``).
        alpha: weight of the whole penalty; 1, since the multipliers are the weights.
        kernel_size: odd window in voxels of tau and of the regions, one number or one per axis.
        padding: what lies outside the image, see :func:`~monai_calib.losses.neighborhood.label_proportions`.
        options: the arguments of :class:`ConstrainedLoss`.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``; returns a scalar, or ``(B, *spatial)`` with
    ``reduction="none"``. The state has ``(2, K)`` multipliers: inner, outer.
    Raises: ``ValueError`` for an unknown name, a first value or margin that is not positive, another number of classes
    than the multipliers are for.
    Source: Murugesan et al., 2024; https://arxiv.org/abs/2403.12364

    Example:
        >>> loss = CRaCLoss(num_classes=2, multiplier=0.1, rho=0.1)
        >>> loss(torch.zeros(1, 2, 4), torch.zeros(1, 1, 4)).item()  # log 2 + ((0.1 + 0.1 * 5)^2 - 0.1^2) / 0.2 / 4
        1.1306...
    """

    penalty: RegionPenalty

    def __init__(
        self,
        margin: float = 5.0,
        penalty_function: str = "phr",
        multiplier: float = 1e-6,
        rho: float = 0.1,
        num_classes: int | None = None,
        alpha: float = 1.0,
        kernel_size: int | Sequence[int] = 3,
        padding: str = "replicate",
        **options: Unpack[SharedOptions],
    ) -> None:
        penalty = RegionPenalty(margin, penalty_function, multiplier, rho, num_classes, kernel_size, padding)
        super().__init__(CrossEntropy(), penalty, alpha, kernel_size=kernel_size, **options)
