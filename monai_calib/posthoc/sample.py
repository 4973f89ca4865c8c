"""A case as a sample of its voxels, for volumes too large to keep: strata with whole inclusion weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.regions import Region
from monai_calib.posthoc.stream import SLAB, LogitCase

__all__ = ["Distances", "SampledCase", "sample_case"]

SURE = 0.99
"""Voxels below this confidence, and wrong ones, are taken before all others: they decide a fit."""


class Distances(NamedTuple):
    """Signed distance in mm to the predicted boundary, exact up to ``reach``, for voxels of this size."""

    values: Tensor
    spacing: tuple[float, ...]
    reach: float


class SampledCase(LogitCase):
    """Voxels of a case with the number of voxels that each stands for.

    Every sum over the case is the sum over these voxels times their weight; weights add up to the voxels of the case,
    stratum by stratum. There is no neighbourhood: masks of regions and distances to the predicted boundary were taken
    from the whole volume.

    Args:
        name, subject, spacing: as in :class:`~.stream.LogitCase`.
        logits: ``(K, n)``.
        label: ``(n,)``.
        weight: ``(n,)`` whole numbers.
        masks: by region.
        distances: to the predicted boundary, if they were asked for.
        raters: ``(R, n)``.
        ignore_index: as in :class:`~.stream.LogitCase`; only a rater's label holds it.
    """

    def __init__(
        self,
        name: str,
        logits: Tensor,
        label: Tensor,
        weight: Tensor,
        masks: Mapping[str, Tensor],
        distances: Distances | None = None,
        spacing: Sequence[float] | None = None,
        subject: str = "",
        raters: Tensor | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(
            name, logits, label, spacing=spacing, ignore_index=ignore_index, subject=subject, raters=raters
        )
        self._masks.update({Region.parse(region).name: mask for region, mask in masks.items()})
        self.distances = distances
        self.weight: Tensor = weight

    def mask(self, region: str | Region) -> Tensor:
        region = Region.parse(region)
        if region.name not in self._masks and region.kind != "all":
            known = ", ".join(self._masks) or "none"
            raise ValueError(f"case {self.name}: a sample keeps masks of regions {known}, not of {region}")
        return super().mask(region)

    def count(self, region: str | Region) -> int:
        return int(self.weight[self.mask(region)].sum())

    def slices(self, axis: int, region: str | Region) -> Iterator[LogitCase]:
        within = copy.copy(self)  # what looks around reads the kept distances, which are those within slices
        within.spacing = None if self.distances is None else self.distances.spacing
        yield within

    @property
    def axes(self) -> int:
        return len(self.spacing or self.label.shape)

    def distance(self, num_classes: int, spacing: Sequence[float], reach: float) -> Tensor:
        kept = self.distances
        alike = kept is not None and np.allclose(kept.spacing, spacing, rtol=0.01, atol=0)
        if kept is None or kept.reach < reach or not alike:
            raise ValueError(
                f"case {self.name}: the sample holds no distances up to {reach:g} mm at spacing {tuple(spacing)}. "
                "Ask KeptCases for that reach, or allow more bytes"
            )
        return kept.values.clamp(-reach, reach)

    def histogram(self, region: str | Region = "all", logits: Tensor | None = None) -> CalibrationHistogram:
        chosen, seen = self.mask(region), self.logits if logits is None else logits
        total = CalibrationHistogram(len(self.logits), strict=False)
        for times in self.weight.unique().tolist():
            here = chosen & (self.weight == times)
            part = total.empty_like()
            part.update(seen[:, here][None], self.label[here][None], strict=False)
            total.merge(part.times(times))
        return total


def sample_case(
    case: LogitCase,
    most_voxels: int,
    regions: Iterable[str | Region] = (),
    distances: Distances | None = None,
    seed: int = 0,
) -> SampledCase:
    """Draw at most about ``most_voxels`` voxels of a case, those that decide a fit first.

    Strata: voxels that are wrong or less than 99 % sure, up to half of the sample; other foreground, true or predicted;
    other background. Of a stratum one voxel of each run of ``w`` is taken, which counts ``w`` times, the last for what
    is left, so that counts are exact and sums all but unbiased.

    Args:
        case: a whole case.
        most_voxels: to keep.
        regions: whose masks are kept.
        distances: of the whole volume, ``(*spatial)``.
        seed: of the drawing.

    Example:
        >>> case = LogitCase("a", torch.randn(2, 30, 30), torch.zeros(30, 30))
        >>> sample = sample_case(case, 100)
        >>> len(sample.weight) <= 103, sample.count("all")
        (True, 900)
    """
    generator = torch.Generator().manual_seed(seed)
    counts = torch.ones_like(case.label, dtype=torch.bool) if case.ignored is None else ~case.ignored
    counts, label, predicted = counts.flatten().cpu(), case.label.flatten().cpu(), case.predicted.flatten().cpu()
    unsure = (label != predicted) | (_confidence(case.logits) < SURE)
    sure = counts & ~unsure
    foreground = (label != 0) | (predicted != 0)
    left, taken, weights = max(3, most_voxels), [], []
    for number, stratum in enumerate((counts & unsure, sure & foreground, sure & ~foreground)):
        voxels = stratum.nonzero().squeeze(1)
        if not len(voxels):
            continue
        share = left // 2 if number < 2 else left
        every = -(-len(voxels) // max(1, share))
        # one of each run of neighbours in the stratum, anywhere in it: spread over the volume, and without a period
        runs = torch.arange(0, len(voxels), every)
        within = (torch.rand(len(runs), generator=generator) * every).long()
        within[-1] = min(int(within[-1]), len(voxels) - 1 - int(runs[-1]))
        weight = torch.full((len(runs),), every, dtype=torch.int64)
        weight[-1] = len(voxels) - every * (len(runs) - 1)
        taken.append(voxels[runs + within])
        weights.append(weight)
        left -= len(runs)
    where = torch.cat(taken)
    at = where.to(case.logits.device)
    masks = {str(region): case.mask(region).flatten()[at] for region in map(Region.parse, regions)}
    kept = None if distances is None else distances._replace(values=distances.values.flatten()[at])
    return SampledCase(
        case.name,
        case.logits.flatten(1)[:, at],
        case.label.flatten()[at],
        torch.cat(weights).to(at.device),
        masks,
        kept,
        case.spacing,
        case.subject,
        None if case.raters is None else case.raters.flatten(1)[:, at],
        None if case.raters is None else case.ignore_index,
    )


def _confidence(logits: Tensor) -> Tensor:
    """Largest probability of each voxel ``(n,)``, slab by slab."""
    parts = logits.flatten(1).split(SLAB, 1)
    return torch.cat([(part.amax(0) - part.float().logsumexp(0)).exp().cpu() for part in parts])
