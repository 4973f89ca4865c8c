"""Confidence intervals over cases: volumes, or subjects who have several, are what was sampled; voxels are not."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Literal, NamedTuple

import torch

from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.reliability import ReliabilityCurve, reliability_curve
from monai_calib.metrics.sums import Sums

__all__ = ["Interval", "bootstrap_interval", "bootstrap_reliability"]


class Interval(NamedTuple):
    """``low <= value <= high`` (nearly always); ``cases`` that entered, and ``left_out`` because they gave NaN."""

    value: float
    low: float
    high: float
    cases: int
    left_out: int


def bootstrap_interval(
    cases: Sequence[CalibrationHistogram],
    measure: Callable[[CalibrationHistogram], float],
    reduction: Literal["macro", "micro"] = "macro",
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a calibration measure over cases.

    Args:
        cases: one histogram a case.
        measure: such as :func:`monai_calib.metrics.ece`, or ``lambda hist: ece(hist, class_index=2)``.
        reduction: ``"macro"``, the mean of the cases' figures; ``"micro"``, the figure of all cases added. Both are
            legitimate, and differ: of an over- and an under-confident case the errors average, or cancel.
        groups: what is drawn as a whole, one value a case, such as the subject. Each case by itself by default.
        level: coverage of the interval.
        samples: number of resamplings, with replacement.
        seed: of the resampling.

    Returns: an :class:`Interval`. Cases for which the measure is NaN (their region is empty) are left out and counted;
        all is NaN if none is left.
    Raises: ``ValueError`` for no cases, groups of another length, or settings out of range.

    Example:
        >>> from monai_calib.metrics import ece
        >>> cases = []
        >>> for label in (0, 0, 1):  # says 0.7 of class 0; right, right, wrong
        ...     cases.append(CalibrationHistogram(2))
        ...     cases[-1].update(torch.tensor([[[0.7], [0.3]]]), torch.tensor([[label]]), from_logits=False)
        >>> [round(x, 3) for x in bootstrap_interval(cases, ece)]
        [0.433, 0.3, 0.7, 3, 0]
        >>> round(bootstrap_interval(cases, ece, "micro").value, 3)
        0.033
    """
    values = torch.tensor([measure(case) for case in cases], dtype=torch.float64)
    if reduction not in ("macro", "micro"):
        raise ValueError(f"reduction: expected 'macro' or 'micro', got {reduction!r}")
    _check(cases, groups, level, samples)
    known = ~values.isnan()
    kept = [case for case, ok in zip(cases, known.tolist(), strict=True) if ok]
    left_out = len(cases) - len(kept)
    if not kept:
        return Interval(math.nan, math.nan, math.nan, 0, left_out)
    of_kept = None if groups is None else [group for group, ok in zip(groups, known.tolist(), strict=True) if ok]
    draws = _draws(len(kept), of_kept, samples, seed)
    everyone = torch.ones(len(kept), dtype=torch.int64)
    if reduction == "macro":
        value = float(values[known].mean())
        drawn = (draws.double() @ values[known]) / draws.sum(1)
    else:
        pool = _Pool(kept)
        value = measure(pool.weighted(everyone))
        drawn = torch.tensor([measure(pool.weighted(weights)) for weights in draws], dtype=torch.float64)
    low, high = _quantiles(drawn, level)
    return Interval(value, float(low), float(high), len(kept), left_out)


def bootstrap_reliability(
    cases: Sequence[CalibrationHistogram],
    num_bins: int = 15,
    class_index: int | None = None,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> ReliabilityCurve:
    """Reliability curve of all cases added, with bands from resampling cases; arguments as in the two functions.

    Example:
        >>> hist = CalibrationHistogram(2)
        >>> hist.update(torch.tensor([[[0.7], [0.3]]]), torch.zeros(1, 1), from_logits=False)
        >>> curve = bootstrap_reliability([hist, hist], num_bins=2, samples=10)
        >>> curve.accuracy, curve.accuracy_low  # the cases agree: no spread
        (tensor([nan, 1.], dtype=torch.float64), tensor([nan, 1.], dtype=torch.float64))
    """
    _check(cases, groups, level, samples)
    whole = reliability_curve(_Pool(cases).weighted(torch.ones(len(cases), dtype=torch.int64)), num_bins, class_index)
    rows = [case.bins(num_bins, class_index) for case in cases]
    draws = _draws(len(cases), groups, samples, seed)
    count = draws @ torch.stack([row.count for row in rows])
    hits = draws @ torch.stack([row.hits for row in rows])
    low, high = _quantiles(hits.double() / count, level)
    return whole._replace(accuracy_low=low, accuracy_high=high)


class _Pool:
    """Cases stacked, to be added with whole weights."""

    def __init__(self, cases: Sequence[CalibrationHistogram]) -> None:
        for case in cases[1:]:
            CalibrationHistogram.from_state(cases[0].state_dict()).merge(case)  # raises if they are not alike
        self._first = cases[0]
        tensors = [case.sums.tensors() for case in cases]
        self._stacked = {name: torch.stack([t[name].cpu() for t in tensors]) for name in tensors[0]}

    def weighted(self, weights: torch.Tensor) -> CalibrationHistogram:
        total = self._first.empty_like()
        total.sums = Sums(
            **{name: torch.tensordot(weights.to(v.dtype), v, dims=1) for name, v in self._stacked.items()}
        )
        return total


def _check(
    cases: Sequence[CalibrationHistogram], groups: Sequence[Hashable] | None, level: float, samples: int
) -> None:
    if not cases:
        raise ValueError("cases: expected at least one histogram, got none")
    if groups is not None and len(groups) != len(cases):
        raise ValueError(f"groups: expected one a case, {len(cases)}, got {len(groups)}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected between 0 and 1, got {level}")
    if samples < 1:
        raise ValueError(f"samples: expected at least 1, got {samples}")


def _draws(cases: int, groups: Sequence[Hashable] | None, samples: int, seed: int) -> torch.Tensor:
    """How often each case was drawn: int64 ``(samples, cases)``."""
    names = list(range(cases)) if groups is None else groups
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    of_case = torch.tensor([number[name] for name in names])
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(number), (samples, len(number)), generator=generator)
    times = torch.zeros(samples, len(number), dtype=torch.int64).scatter_add_(1, drawn, torch.ones_like(drawn))
    return times[:, of_case]


def _quantiles(drawn: torch.Tensor, level: float) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = torch.nanquantile(drawn, torch.tensor([(1 - level) / 2, (1 + level) / 2]).double(), dim=0)
    return low, high
