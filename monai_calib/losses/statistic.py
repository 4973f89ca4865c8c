"""Penalties that are one figure of the whole batch: what they have in common."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .base import ConstrainedLoss
from .neighborhood import outer_voxels
from .target import Target

__all__ = ["StatisticLoss", "known"]


def known(target: Target, like: Tensor) -> Tensor:
    """1 at every voxel whose label is known, 0 at the others, ``(B, *spatial)`` in the type of ``like``."""
    if target.valid is None:
        return torch.ones_like(target.index, dtype=like.dtype)
    return target.valid.to(like.dtype)


class StatisticLoss(ConstrainedLoss):
    """A primary objective plus ``alpha`` times a statistic of the batch, such as a binned calibration error.

    ``penalty_region="outer"`` takes the statistic over the outer voxels only. ``reduction="none"`` is an error, and
    ``"sum"`` adds the statistic once.
    """

    def _penalty(self, logits: Tensor, target: Target) -> Tensor:
        if self.penalty_region == "outer":
            outer = outer_voxels(target.marked, self.kernel_size, target.ignore)
            target = replace(target, valid=outer if target.valid is None else target.valid & outer)
        return super()._penalty(logits, target)
