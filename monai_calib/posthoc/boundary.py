"""A temperature that depends on the distance to the predicted boundary."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from monai_calib.metrics.regions import Region
from monai_calib.posthoc.distance import distance_to_boundary
from monai_calib.posthoc.newton import StreamingNewton, number_of, weighted_sum
from monai_calib.posthoc.sample import SampledCase
from monai_calib.posthoc.stream import LogitCase
from monai_calib.posthoc.temperature import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    SearchingCalibrator,
    note_search,
)

__all__ = [
    "BoundaryHead",
    "BoundaryTemperature",
    "DistanceHead",
    "between_knots",
    "distance_to_boundary",
    "knot_weights",
]

_RIDGE = 1e-6


class DistanceHead(nn.Module):
    """A head whose parameters are drawn between knots of the signed distance to the predicted boundary.

    Args:
        num_classes: channels of the logits.
        knots: increasing distances in mm, negative in the predicted background.
        spacing: voxel size in mm.
    """

    def __init__(self, num_classes: int, knots: Sequence[float], spacing: Sequence[float]) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.knots = [float(knot) for knot in knots]
        self.spacing = [float(step) for step in spacing]
        self.reach = max(abs(self.knots[0]), abs(self.knots[-1]))

    def at(self, logits: Tensor, distance: Tensor) -> Tensor:
        """Calibrated logits of voxels ``(B, K, *spatial)`` at known distances ``(B, *spatial)``."""
        raise NotImplementedError

    def distance(self, logits: Tensor) -> Tensor:
        """Signed distance in mm ``(B, *spatial)``, no farther than the outer knots."""
        return distance_to_boundary(logits.argmax(1), self.num_classes, self.spacing, self.reach)


class BoundaryHead(DistanceHead):
    """Multiplies logits by ``beta(d)``, linear between knots of the signed distance ``d`` to the predicted boundary."""

    if TYPE_CHECKING:  # TorchScript cannot read it
        beta: Tensor

    def __init__(self, num_classes: int, knots: Sequence[float], spacing: Sequence[float]) -> None:
        super().__init__(num_classes, knots, spacing)
        self.register_buffer("beta", torch.ones(len(self.knots)))

    def forward(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """Calibrated logits ``(B, K, *spatial)``; the image is not read."""
        return self.at(logits, self.distance(logits))

    def at(self, logits: Tensor, distance: Tensor) -> Tensor:
        """Calibrated logits of voxels ``(B, K, *spatial)`` at known distances ``(B, *spatial)``."""
        beta = between_knots(self.beta[None], distance, self.knots)
        return logits * beta.to(logits.dtype)


def between_knots(values: Tensor, distance: Tensor, knots: list[float]) -> Tensor:
    """Values ``(C, M)`` at the knots, drawn as lines between them and constant beyond: ``(B, C, *spatial)``.

    Example:
        >>> between_knots(torch.tensor([[0.0, 2.0]]), torch.tensor([[-5.0, 0.0, 1.0]]), [-2.0, 2.0]).tolist()
        [[[0.0, 1.0, 1.5]]]
    """
    shape = [1, values.shape[0]] + [1] * (distance.dim() - 1)
    drawn = values[:, 0].view(shape) + torch.zeros_like(distance).unsqueeze(1)
    for i in range(len(knots) - 1):
        share = ((distance - knots[i]) / (knots[i + 1] - knots[i])).clamp(0.0, 1.0)
        drawn = drawn + (values[:, i + 1] - values[:, i]).view(shape) * share.unsqueeze(1)
    return drawn


def knot_weights(distance: Tensor, knots: Sequence[float]) -> Tensor:
    """Weight of each knot in each voxel: ``(*spatial)`` to ``(M, *spatial)``, summing to 1 over M.

    Example:
        >>> knot_weights(torch.tensor([-5.0, 1.0]), [-2.0, 2.0]).tolist()
        [[1.0, 0.25], [0.0, 0.75]]
    """
    shares = [((distance - a) / (b - a)).clamp(0.0, 1.0) for a, b in pairwise(knots)]
    edges = [torch.ones_like(distance), *shares, torch.zeros_like(distance)]
    return torch.stack([here - there for here, there in pairwise(edges)])


class BoundaryTemperature(SearchingCalibrator):
    """A temperature for each distance to the predicted boundary: ``softmax(beta(d) logits)``.

    Near a boundary a network is over-confident, in easy background it is not: a single temperature trades one for the
    other. ``d`` is the distance in mm to the nearest voxel predicted as another class, negative in the background;
    ``beta = 1 / T`` is linear between knots and constant beyond the outer ones. It is linear in its parameters, so
    the likelihood is convex, and a streaming Newton fit finds its optimum. Labels stay as they are.

    Distances are those of the voxel size of the fit. Where windows overlap the head sees the boundary of its window
    only; apply it to the stitched logits to be exact.

    Args:
        num_classes, region: see :class:`~monai_calib.posthoc.base.Calibrator`; the whole volume by default, since every
            distance has its own temperature.
        knots: increasing distances in mm.
        spacing: voxel size in mm. If it is not given, cases must agree on theirs; if it is, every case counts as of
            that size, which turns knots into numbers of voxels for data that keep their own grids.

    Raises: ``ValueError`` for knots that do not increase, or cases of differing or unknown voxel size.

    Example:
        >>> BoundaryTemperature(2, knots=(-2.0, 2.0), spacing=(1.0, 1.0)).temperatures()
        {-2.0: 1.0, 2.0: 1.0}
    """

    method = "boundary_temperature"
    keeps_argmax = True
    looks_around = True
    default_region = "all"

    def __init__(
        self,
        num_classes: int,
        region: str | Region | None = None,
        knots: Sequence[float] = (-8.0, -4.0, -2.0, -1.0, 1.0, 2.0, 4.0),
        spacing: Sequence[float] | None = None,
    ) -> None:
        if len(knots) < 2 or any(b <= a for a, b in pairwise(knots)):
            raise ValueError(f"knots: expected at least two increasing distances in mm, got {tuple(knots)}")
        self.knots = tuple(float(knot) for knot in knots)
        self.spacing = None if spacing is None else tuple(float(step) for step in spacing)
        self._keeps_spacing = spacing is not None
        super().__init__(num_classes, region)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "knots": list(self.knots), "spacing": self.spacing and list(self.spacing)}

    def temperatures(self) -> dict[float, float]:
        """The temperature at each knot."""
        beta = self.head.state_dict()["beta"].tolist()
        return {knot: 1 / value for knot, value in zip(self.knots, beta, strict=True)}

    def apply_case(self, case: LogitCase) -> Tensor:
        if not isinstance(case, SampledCase):
            return super().apply_case(case)
        assert isinstance(self.head, DistanceHead)
        distance = case.distance(self.num_classes, self.head.spacing, self.head.reach)
        return self.head.to(case.logits.device).at(case.logits[None].float(), distance[None])[0]

    def numbers(self, optimum: Tensor) -> dict[str, float]:
        betas = optimum.clamp_min(1 / HIGHEST_TEMPERATURE).tolist()
        return {f"temperature at {knot:g} {self.unit}": 1 / beta for knot, beta in zip(self.knots, betas, strict=True)}

    def in_words(self) -> str:
        return f"temperature by {self.unit} from the predicted boundary: " + self.by_distance(
            [1 / max(beta, 1e-6) for beta in self.head.state_dict()["beta"].tolist()]
        )

    def by_distance(self, values: Sequence[float]) -> str:
        """One value per knot, in words."""
        return ", ".join(f"{knot:g}: {value:.3g}" for knot, value in zip(self.knots, values, strict=True))

    def make_head(self) -> nn.Module:
        return BoundaryHead(self.num_classes, self.knots, self.spacing or (1.0, 1.0, 1.0))

    def observe(self, case: LogitCase) -> None:
        self._check_spacing(f"case {case.name}", case.spacing, case.axes)
        if self._newton is None:
            self.search(case)
            return
        assert self.spacing is not None
        reach = max(abs(self.knots[0]), abs(self.knots[-1]))
        distance = case.distance(self.num_classes, self.spacing, reach)
        for logits, label, weight, shares in case.slabs(self.region, knot_weights(distance, self.knots)):
            self._add_to_newton(self._newton, logits, label, shares, weight)

    def end_pass(self) -> bool:
        if self._newton is None:
            if not self._search.end_pass():
                return False
            note_search(self, self._search)
            newton = self.newton_from(self._search.temperature)
            self._set(newton.start)
            if self.record.status != "converged":
                return True
            self._newton = newton
            return False
        done = self._newton.end_pass()
        self._set(self._newton.theta)
        if done and self._newton.status == "at bound":
            self.warn("at bound", self._what_is_at_bound())
        return done

    def newton_from(self, temperature: float) -> StreamingNewton:
        start = torch.full((len(self.knots),), 1 / temperature, dtype=torch.float64)
        low, high = (torch.full_like(start, 1 / t) for t in (HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE))
        return StreamingNewton(start, low, high, torch.full_like(start, _RIDGE))

    def _add_to_newton(
        self, newton: StreamingNewton, logits: Tensor, label: Tensor, shares: Tensor, weight: Tensor | None
    ) -> None:
        beta = newton.trial.to(logits) @ shares
        scaled = beta * logits
        normaliser = scaled.logsumexp(0)
        at_label = logits.gather(0, label[None])[0]
        p = (scaled - normaliser).exp_()
        mean = (p * logits).sum(0)
        variance = (p * (logits - mean).square()).sum(0)
        counted = shares if weight is None else shares * weight
        value = weighted_sum(normaliser - beta * at_label, weight)
        newton.add(value, counted @ (mean - at_label), (counted * variance) @ shares.T, number_of(label, weight))

    def _what_is_at_bound(self) -> str:
        reached = {d: round(t, 3) for d, t in self.temperatures().items() if not 0.051 < t < 19.9}
        return (
            f"temperatures {reached} (mm: T) ended at the end of the range {LOWEST_TEMPERATURE:g} ... "
            f"{HIGHEST_TEMPERATURE:g}: nearly all voxels at that distance are right, or none is told apart"
        )

    def _set(self, parameters: Tensor) -> None:
        self.head.load_state_dict({"beta": parameters.float()})

    def learn(self, settings: Mapping[str, Any], where: str) -> None:
        spacing = settings.get("spacing")
        self._check_spacing(where, spacing, len(spacing or self.spacing or ()))
        super().learn({**settings, "spacing": self.settings()["spacing"]}, where)

    def _check_spacing(self, what: str, spacing: Sequence[float] | None, axes: int) -> None:
        if spacing is None and self.spacing is None:
            raise ValueError(f"{what}: distances in mm need the voxel spacing; load a header or pass spacing=")
        if self.spacing is None:
            assert spacing is not None
            self.spacing = tuple(float(step) for step in spacing)
            self.head = self.make_head()
        given = self.spacing if self._keeps_spacing else spacing or self.spacing
        if len(self.spacing) != axes:
            raise ValueError(
                f"{what}: {axes} spatial axes, but a spacing of {self.spacing} mm; "
                "pass spacing= with one number an axis"
            )
        if any(not math.isclose(a, b, rel_tol=0.01) for a, b in zip(given, self.spacing, strict=True)):
            raise ValueError(
                f"{what}: voxels of {tuple(given)} mm, but the others have {self.spacing}: bring the cases "
                "to one spacing (Spacingd) for a temperature by distance, or pass spacing= to count all voxels as of "
                "that size"
            )
