"""Penalty-Lagrangian functions: what a constraint ``h <= 0`` costs, given its multiplier."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["PENALTY_LAGRANGIANS", "PenaltyLagrangian"]


class PenaltyLagrangian(NamedTuple):
    """A function ``P(h, multiplier, rho)`` and its slope in h; at h = 0 the slope is the multiplier."""

    value: Callable[[Tensor, Tensor, Tensor], Tensor]
    slope: Callable[[Tensor, Tensor, Tensor], Tensor]


def _phr(h: Tensor, multiplier: Tensor, rho: Tensor) -> Tensor:
    return (torch.relu(multiplier + rho * h) ** 2 - multiplier**2) / (2 * rho)


def _phr_slope(h: Tensor, multiplier: Tensor, rho: Tensor) -> Tensor:
    return torch.relu(multiplier + rho * h)


def _held(h: Tensor, multiplier: Tensor, rho: Tensor) -> Tensor:
    """The branch of a kept constraint, h <= 0, that P2 and P3 share; the clamp keeps the other side finite."""
    return multiplier * h / (1 - rho * h.clamp(max=0))


def _held_slope(h: Tensor, multiplier: Tensor, rho: Tensor) -> Tensor:
    return multiplier / (1 - rho * h.clamp(max=0)) ** 2


def _p2(h: Tensor, multiplier: Tensor, rho: Tensor) -> Tensor:
    broken = multiplier * h + multiplier * rho * h**2 + rho**2 * h**3 / 6
    return torch.where(h >= 0, broken, _held(h, multiplier, rho))


def _p2_slope(h: Tensor, multiplier: Tensor, rho: Tensor) -> Tensor:
    broken = multiplier + 2 * multiplier * rho * h + rho**2 * h**2 / 2
    return torch.where(h >= 0, broken, _held_slope(h, multiplier, rho))


def _p3(h: Tensor, multiplier: Tensor, rho: Tensor) -> Tensor:
    return torch.where(h >= 0, multiplier * h + multiplier * rho * h**2, _held(h, multiplier, rho))


def _p3_slope(h: Tensor, multiplier: Tensor, rho: Tensor) -> Tensor:
    return torch.where(h >= 0, multiplier + 2 * multiplier * rho * h, _held_slope(h, multiplier, rho))


PENALTY_LAGRANGIANS: dict[str, PenaltyLagrangian] = {
    "phr": PenaltyLagrangian(_phr, _phr_slope),
    "p2": PenaltyLagrangian(_p2, _p2_slope),
    "p3": PenaltyLagrangian(_p3, _p3_slope),
}
"""By the names of Birgin, Castillo and Martinez, Computational Optimization and Applications 2005; m the multiplier.

``phr`` (Powell, Hestenes, Rockafellar): ``(max(0, m + rho h)^2 - m^2) / (2 rho)``;
``p2``: ``m h + m rho h^2 + rho^2 h^3 / 6`` for h >= 0; ``p3``: ``m h + m rho h^2`` for h >= 0; both
``m h / (1 - rho h)`` for h < 0.
"""
