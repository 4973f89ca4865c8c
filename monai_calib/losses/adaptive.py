"""CRaC and CALS: penalty weights that follow how well each constraint is kept on the validation cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from .base import ConstrainedLoss, Options
from .cross_entropy import CrossEntropy
from .lagrangian import PENALTY_LAGRANGIANS
from .neighborhood import PADDINGS, label_proportions, outer_voxels
from .target import Target, plain, prepare

__all__ = ["AdaptivePenalty", "CALSLoss", "CRaCLoss", "ConstraintSums", "DistancePenalty", "RegionPenalty"]

STATE = ("multiplier", "rho", "last_constraint")


class ConstraintSums(NamedTuple):
    """Sums over voxels: slope of the penalty and constraint ``(R, K)``, number of voxels ``(R, 1)``, in float64."""

    slope: Tensor
    constraint: Tensor
    voxels: Tensor


class AdaptivePenalty(nn.Module):
    """``P(h_k, multiplier, rho)`` for every class: a penalty with one multiplier and one rho per region and class.

    The multipliers are buffers ``(R, K)``, so they are saved with the loss; they stay as they are until
    :class:`~monai_calib.handlers.MultiplierHandler` updates them from a validation epoch.

    Attributes:
        multiplier, rho: weight and steepness of every constraint.
        last_constraint: mean constraint of the last validation, NaN before the first.
        updates: number of validations so far.
    """

    regions: tuple[str, ...] = ("all",)
    multiplier: Tensor
    rho: Tensor
    last_constraint: Tensor
    updates: Tensor

    def __init__(
        self, penalty_function: str, multiplier: float, rho: float, num_classes: int | None, margin: float
    ) -> None:
        super().__init__()
        if penalty_function not in PENALTY_LAGRANGIANS:
            raise ValueError(
                f"penalty_function must be one of {', '.join(PENALTY_LAGRANGIANS)}, got {penalty_function!r}."
            )
        for name, value in (("multiplier", multiplier), ("rho", rho), ("margin", margin)):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}.")
        self.penalty_function = penalty_function
        self.margin = margin
        self.first_multiplier = multiplier
        self.first_rho = rho
        for name in STATE:
            self.register_buffer(name, torch.zeros(len(self.regions), 0))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        if num_classes is not None:
            self.fit_to(num_classes)

    def fit_to(self, num_classes: int) -> None:
        """Give every constraint its first multiplier, if that has not happened yet.

        Raises:
            ValueError: if the multipliers are those of another number of classes.
        """
        known = self.multiplier.shape[1]
        if known == num_classes:
            return
        if known:
            raise ValueError(f"The multipliers are for {known} classes, the logits have {num_classes} channels.")
        for name, value in zip(STATE, (self.first_multiplier, self.first_rho, torch.nan), strict=True):
            setattr(self, name, torch.full((len(self.regions), num_classes), value, device=self.multiplier.device))

    def constraint(self, logits: Tensor, target: Target, outer: Tensor | None) -> Tensor:
        """h ``(B, K, *spatial)``, positive where the constraint is broken."""
        raise NotImplementedError

    def outer(self, target: Target) -> Tensor | None:
        """Voxels of the second region, bool ``(B, *spatial)``; None where there is one region."""
        return None

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        outer = self.outer(target)
        value = PENALTY_LAGRANGIANS[self.penalty_function].value(
            self.constraint(logits, target, outer), *self._weights(logits, outer)
        )
        # A mean over regions too: each constraint is 0 outside its region.
        return value / len(self.regions)

    def _weights(self, logits: Tensor, outer: Tensor | None) -> tuple[Tensor, Tensor]:
        """Multiplier and rho at every voxel and class."""
        self.fit_to(logits.shape[1])
        if self.multiplier.device != logits.device:
            self.to(logits.device)
        shape = (1, -1, *[1] * (logits.ndim - 2))
        if outer is None:
            return self.multiplier[0].view(shape), self.rho[0].view(shape)
        multiplier, rho = (
            torch.where(outer.unsqueeze(1), state[1].view(shape), state[0].view(shape))
            for state in (self.multiplier, self.rho)
        )
        return multiplier, rho

    @torch.no_grad()
    def sums(self, logits: Tensor, label: Tensor, ignore_index: int | None = None) -> ConstraintSums:
        """What an update of the multipliers needs to know of a batch; sums of batches and of ranks add up."""
        target = prepare(logits, label, ignore_index)
        logits = plain(logits).float()
        outer = self.outer(target)
        h = self.constraint(logits, target, outer)
        slope = PENALTY_LAGRANGIANS[self.penalty_function].slope(h, *self._weights(logits, outer))
        valid = torch.ones_like(target.index, dtype=torch.bool) if target.valid is None else target.valid
        masks = [valid] if outer is None else [valid & ~outer, valid & outer]
        axes = (0, *range(2, h.ndim))
        slopes, constraints = (
            torch.stack([torch.where(m.unsqueeze(1), x, 0.0).sum(axes, dtype=torch.float64) for m in masks])
            for x in (slope, h)
        )
        return ConstraintSums(slopes, constraints, torch.stack([m.sum(dtype=torch.float64).view(1) for m in masks]))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}multiplier")
        if saved is not None and not self.multiplier.shape[1] and saved.shape[1]:
            self.fit_to(saved.shape[1])
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"penalty_function={self.penalty_function!r}, margin={self.margin}, classes={self.multiplier.shape[1]}"


class RegionPenalty(AdaptivePenalty):
    """CRaC's constraints: ``|margin * tau_k - l_k|`` on inner voxels, ``|tau_k - l_k|`` on outer ones."""

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
        if padding not in PADDINGS:
            raise ValueError(f"padding must be one of {', '.join(PADDINGS)}, got {padding!r}.")
        self.kernel_size = kernel_size
        self.padding = padding

    def outer(self, target: Target) -> Tensor:
        return outer_voxels(target.marked, self.kernel_size, target.ignore)

    def constraint(self, logits: Tensor, target: Target, outer: Tensor | None) -> Tensor:
        assert outer is not None
        tau = label_proportions(
            target.marked if target.soft is None else target.soft,
            target.num_classes,
            kernel_size=self.kernel_size,
            padding=self.padding,
            ignore=target.ignore,
            dtype=logits.dtype,
        )
        return (torch.where(outer.unsqueeze(1), tau, self.margin * tau) - logits).abs()


class DistancePenalty(AdaptivePenalty):
    """CALS's constraints: ``(max_j l_j - l_k) / margin - 1``, negative while the distance is within the margin."""

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
        **options: Unpack[Options],
    ) -> None:
        penalty = RegionPenalty(margin, penalty_function, multiplier, rho, num_classes, kernel_size, padding)
        super().__init__(CrossEntropy(), penalty, alpha, kernel_size=kernel_size, **options)


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
        kernel_size: window that tells outer voxels, read with ``penalty_region="outer"`` only.
        options: the arguments of :class:`ConstrainedLoss`.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``; returns a scalar, or ``(B, *spatial)`` with
    ``reduction="none"``. The state has ``(1, K)`` multipliers.
    Raises: ``ValueError`` for an unknown name, a first value or margin that is not positive, another number of classes
    than the multipliers are for.
    Source: Liu et al., CVPR 2023; https://arxiv.org/abs/2211.15088

    Example:
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
        kernel_size: int | Sequence[int] = 3,
        **options: Unpack[Options],
    ) -> None:
        penalty = DistancePenalty(margin, penalty_function, multiplier, rho, num_classes)
        super().__init__(CrossEntropy(), penalty, alpha, kernel_size=kernel_size, **options)
