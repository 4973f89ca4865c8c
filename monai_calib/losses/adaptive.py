"""Penalties whose weights follow how well each constraint is kept on the validation cases."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .arguments import above, one_of
from .lagrangian import PENALTY_LAGRANGIANS
from .target import Target, prepare, readable

__all__ = ["AdaptivePenalty", "ConstraintSums"]

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
        self.penalty_function = one_of("penalty_function", penalty_function, PENALTY_LAGRANGIANS)
        self.margin = above("margin", margin, 0)
        self.first_multiplier = above("multiplier", multiplier, 0)
        self.first_rho = above("rho", rho, 0)
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
            raise ValueError(f"multipliers: expected logits of {known} classes, got {num_classes}. Build another loss.")
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
        h, penalty = self.constraint(logits, target, outer), PENALTY_LAGRANGIANS[self.penalty_function]
        # a mean over regions too: each constraint is 0 outside its region
        return penalty.value(h, *self._weights(logits, outer)) / len(self.regions)

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
        """Sums of a batch that an update of the multipliers needs; those of batches and of ranks add up."""
        target = prepare(logits, label, ignore_index)
        logits = readable(logits, target)
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
