"""One temperature for all logits, found exactly in two or three passes over the data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monai_calib.metrics.regions import Region
from monai_calib.posthoc.base import Calibrator
from monai_calib.posthoc.linear import LinearHead
from monai_calib.posthoc.newton import Derivatives, StreamingNewton, number_of, weighted_sum
from monai_calib.posthoc.stream import LogitCase

__all__ = ["HIGHEST_TEMPERATURE", "LOWEST_TEMPERATURE", "TemperatureScaling", "TemperatureSearch"]

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0
_CANDIDATES = 13
# A bracket this narrow in log T leaves the cubic through its ends an error far below 1e-6.
_NARROW = 0.05


class TemperatureSearch:
    """Minimises the mean negative log-likelihood of ``softmax(logits / T)`` from sums over voxels.

    With ``beta = 1 / T`` the likelihood of a voxel is ``f = lse(beta l) - beta l_y``, convex in ``beta``, with
    ``f' = E_p[l] - l_y`` and ``f'' = Var_p[l]``. A pass sums ``f' `` and ``f''`` for several temperatures at once. The
    two between which ``f'`` changes sign bracket the optimum; the cubic in ``log T`` through values and slopes of
    ``f'`` at its ends says where; the next pass looks close around it. Two passes leave an error below 1e-6 in
    ``log T``, unless the likelihood is very odd: then a third does.

    Attributes:
        candidates: logarithms of the temperatures that this pass looks at.
    """

    def __init__(self) -> None:
        step = math.log(HIGHEST_TEMPERATURE / LOWEST_TEMPERATURE) / (_CANDIDATES - 1)
        self.candidates = [math.log(LOWEST_TEMPERATURE) + i * step for i in range(_CANDIDATES)]
        self.candidates.append(0.0)
        self._known: dict[float, tuple[float, float]] = {}
        self._sums: Tensor | None = None
        self._voxels = 0
        self.class_voxels: Tensor | None = None
        self.nll_before = math.nan
        self.temperature = 1.0
        self.status, self.message = "", ""
        self._found = False

    def add(self, logits: Tensor, label: Tensor, weight: Tensor | None = None) -> None:
        """Add voxels: ``(K, n)`` float64 and ``(n,)``, each counting once or ``weight`` times."""
        if self._sums is None:
            self._begin(len(logits), logits.device)
        assert self._sums is not None
        assert self.class_voxels is not None
        # Common shifts do not matter, but would cost digits.
        logits = logits - logits.amax(0)
        at_label = logits.gather(0, label[None])[0]
        for row, log_t in zip(self._sums, self.candidates, strict=True):
            beta = math.exp(-log_t)
            p = (beta * logits).exp_()
            total = p.sum(0)
            p /= total
            mean = (p * logits).sum(0)
            variance = (p * (logits - mean).square()).sum(0)
            sums = (total.log() - beta * at_label, mean - at_label, variance)
            row += torch.stack([weighted_sum(each, weight) for each in sums])
        self.class_voxels += torch.bincount(label, weight, minlength=len(logits)).long()
        self._voxels += number_of(label, weight)

    def _begin(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        self._sums = torch.zeros(len(self.candidates), 3, dtype=torch.float64, device=device)
        self.class_voxels = torch.zeros(num_classes, dtype=torch.int64, device=device)

    def sums(self, num_classes: int) -> dict[str, Tensor]:
        """The sums of this pass so far, as :meth:`add_sums` takes them."""
        if self._sums is None:
            self._begin(num_classes)
        assert self._sums is not None
        assert self.class_voxels is not None
        voxels = torch.tensor(self._voxels, dtype=torch.int64)
        return {"derivatives": self._sums, "class_voxels": self.class_voxels, "count": voxels}

    def add_sums(self, derivatives: Tensor, class_voxels: Tensor, count: Tensor) -> None:
        """Add the sums of this pass that another search has taken, at the same temperatures."""
        mine = self.sums(len(class_voxels))
        mine["derivatives"] += derivatives.to(mine["derivatives"].device)
        mine["class_voxels"] += class_voxels.to(mine["class_voxels"].device)
        self._voxels += int(count)

    def end_pass(self) -> bool:
        """Whether :attr:`temperature` is found; otherwise the next pass looks closer. Asked again, says the same."""
        if self._sums is not None:
            self._found = self._end_pass(self._sums)
        return self._found

    def _end_pass(self, sums: Tensor) -> bool:
        rows = (sums / self._voxels).tolist()
        for log_t, (value, slope, curvature) in zip(self.candidates, rows, strict=True):
            beta = math.exp(-log_t)
            # f' with respect to beta, and how it changes with log T
            self._known[log_t] = (slope, -beta * curvature)
            if log_t == 0.0:
                self.nll_before = value
        self._sums, self._voxels = None, 0
        if all(slope == 0.0 == change for slope, change in self._known.values()):
            self.status = "undetermined"
            self.message = (
                "the logits of every voxel are equal for all classes, so no temperature changes anything; kept T = 1. "
                "The network has learned nothing: train it, or load its weights"
            )
            return True
        nodes = sorted(self._known)
        if self._known[nodes[0]][0] <= 0:
            return self._bounded(nodes[0], "every voxel is right with a wide margin (separable), or nearly so")
        if self._known[nodes[-1]][0] >= 0:
            return self._bounded(nodes[-1], "the logits tell nothing of the labels, or are wrong more often than not")
        # f' rises with beta, so it falls with log T: positive on the left of the optimum, negative on the right.
        left = max(node for node in nodes if self._known[node][0] > 0)
        right = min(node for node in nodes if node > left)
        best = _root_of_cubic(left, right, *self._known[left], *self._known[right])
        self.temperature = math.exp(best)
        if right - left <= _NARROW:
            self.status = "converged"
            return True
        near = [best + offset for offset in (-0.1, -0.02, 0.0, 0.02, 0.1)]
        self.candidates = [log_t for log_t in near if left < log_t < right]
        return False

    def _bounded(self, log_t: float, reason: str) -> bool:
        self.temperature = math.exp(log_t)
        self.status = "at bound"
        self.message = (
            f"the likelihood still improves at T = {self.temperature:g}, the end of the range "
            f"{LOWEST_TEMPERATURE:g} ... {HIGHEST_TEMPERATURE:g}: {reason}. T = {self.temperature:g} was kept; "
            "calibrate on more cases or another region, or keep the network as it is"
        )
        return True


def _root_of_cubic(a: float, b: float, fa: float, da: float, fb: float, db: float) -> float:
    """Root, by bisection, of the cubic with values ``fa > 0 >= fb`` and slopes ``da``, ``db`` at ``a`` and ``b``."""
    width, low, high = b - a, 0.0, 1.0
    for _ in range(60):
        t = (low + high) / 2
        value = (
            (1 + 2 * t) * (1 - t) ** 2 * fa
            + t * (1 - t) ** 2 * width * da
            + t * t * (3 - 2 * t) * fb
            + t * t * (t - 1) * width * db
        )
        low, high = (t, high) if value > 0 else (low, t)
    return a + width * (low + high) / 2


class SearchingCalibrator(Calibrator):
    """A calibrator that begins with the search for one temperature, which several of one fit can share."""

    def __init__(self, num_classes: int, region: str | Region | None = None) -> None:
        super().__init__(num_classes, region)
        self._search = TemperatureSearch()
        self._newton: Any = None  # a StreamingNewton once the search is over, or Derivatives at its end
        self._follows = False

    def derivatives(self, case: LogitCase) -> Derivatives | None:
        if self._newton is None:
            return None
        fitted, probe = self._newton, Derivatives(self._newton.theta)
        self._newton = probe
        try:
            for part in self.parts(case):
                self.observe(part)
        finally:
            self._newton = fitted
        probe.penalise(fitted)
        return probe

    def optimum(self) -> Tensor | None:
        return None if self._newton is None else self._newton.theta

    def newton_from(self, temperature: float) -> StreamingNewton:
        """The fit that goes on from the temperature of the search."""
        raise NotImplementedError

    def place(self) -> dict[str, Any]:
        if self._newton is None:
            return {"log_temperatures": list(self._search.candidates)}
        return {
            "temperature": self._search.temperature,
            "absent_classes": list(self.record.absent_classes),
            "parameters": self._newton.trial.tolist(),
        }

    def go_to(self, place: Mapping[str, Any]) -> None:
        if "log_temperatures" in place:
            self._search.candidates = [float(value) for value in place["log_temperatures"]]
            return
        self.record.absent_classes = tuple(place["absent_classes"])
        self._newton = self.newton_from(place["temperature"])
        self._newton.look_at(torch.tensor(place["parameters"], dtype=torch.float64))

    def sums(self) -> dict[str, Tensor]:
        return self._search.sums(self.num_classes) if self._newton is None else self._newton.sums()

    def add_sums(self, sums: Mapping[str, Tensor]) -> None:
        if self._newton is None:
            self._search.add_sums(**sums)
        else:
            self._newton.add(**{**sums, "count": int(sums["count"])})

    def share(self, other: Calibrator) -> bool:
        if not isinstance(other, SearchingCalibrator) or other.region != self.region or other._follows:
            return False
        if type(self).search_input is not type(other).search_input:
            return False
        self._search, self._follows = other._search, True
        return True

    @staticmethod
    def search_input(logits: Tensor) -> Tensor:
        """The logits whose temperature is searched."""
        return logits

    def search(self, case: LogitCase) -> None:
        """Add a case to the search, unless another calibrator does."""
        if not self._follows:
            for logits, label, weight in case.slabs(self.region):
                self._search.add(self.search_input(logits), label, weight)


class TemperatureScaling(SearchingCalibrator):
    """Temperature scaling: ``softmax(logits / T)`` with the ``T`` of the largest likelihood.

    Labels stay as they are. ``T`` is looked for between 0.05 and 20; see :class:`TemperatureSearch`.

    Args: see :class:`~monai_calib.posthoc.base.Calibrator`.
    Source: Guo et al., ICML 2017; https://arxiv.org/abs/1706.04599

    Example:
        >>> scaling = TemperatureScaling(3)
        >>> scaling.set_temperature(2.0)
        >>> scaling.apply(torch.tensor([[[4.0], [2.0], [0.0]]])).flatten().tolist()
        [2.0, 1.0, 0.0]
    """

    method = "temperature"
    foldable = True
    keeps_argmax = True

    @property
    def temperature(self) -> float:
        """The temperature in use, 1 before the fit."""
        assert isinstance(self.head, LinearHead)
        return 1.0 / float(self.head.weight[0, 0])

    def set_temperature(self, temperature: float) -> None:
        """Use a temperature that is already known. Raises ``ValueError`` unless it is positive and finite."""
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature: expected a positive number, got {temperature}")
        self.head = LinearHead(torch.eye(self.num_classes) / temperature, torch.zeros(self.num_classes))

    def derivatives(self, case: LogitCase) -> Derivatives | None:
        if self.record.status != "converged":
            return None
        probe, beta = Derivatives(torch.zeros(1)), 1 / self.temperature
        for logits, label, weight in case.slabs(self.region):
            p = (beta * logits).softmax(0)
            mean = (p * logits).sum(0)
            variance = (p * (logits - mean).square()).sum(0)
            gradient = weighted_sum(mean - logits.gather(0, label[None])[0], weight)
            curvature = weighted_sum(variance, weight)[None, None]
            probe.add(torch.zeros(()), gradient[None], curvature, number_of(label, weight))
        return probe

    def optimum(self) -> Tensor | None:
        return torch.tensor([1 / self.temperature], dtype=torch.float64)

    def numbers(self, optimum: Tensor) -> dict[str, float]:
        return {"temperature": 1 / max(float(optimum[0]), 1 / HIGHEST_TEMPERATURE)}

    def in_words(self) -> str:
        return f"temperature {self.temperature:.4g}"

    def make_head(self) -> nn.Module:
        return LinearHead(torch.eye(self.num_classes), torch.zeros(self.num_classes))

    def observe(self, case: LogitCase) -> None:
        self.search(case)

    def end_pass(self) -> bool:
        done = self._search.end_pass()
        self.set_temperature(self._search.temperature)
        self.record.nll_before = self._search.nll_before
        if done:
            note_search(self, self._search)
        return done


def note_search(calibrator: Calibrator, search: TemperatureSearch) -> None:
    """Write into a calibrator's record how its search for a temperature ended."""
    assert search.class_voxels is not None
    calibrator.record.nll_before = search.nll_before
    calibrator.record.absent_classes = absent_classes(search.class_voxels)
    if search.message:
        calibrator.warn(search.status, search.message)
    else:
        calibrator.record.status = search.status


def absent_classes(class_voxels: Tensor | Sequence[int]) -> tuple[int, ...]:
    """Classes that no label of the region bears.

    Example:
        >>> absent_classes([5, 0, 3])
        (1,)
    """
    return tuple(k for k, voxels in enumerate(torch.as_tensor(class_voxels).tolist()) if voxels == 0)
