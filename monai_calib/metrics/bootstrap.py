"""Bootstrap over volumes, or over subjects who have several: they were sampled, voxels were not."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.reliability import ReliabilityCurve, reliability_curve
from monai_calib.metrics.sums import Sums

__all__ = [
    "Interval",
    "Intervals",
    "bootstrap_difference",
    "bootstrap_interval",
    "bootstrap_mean",
    "bootstrap_ratio",
    "bootstrap_reliability",
    "resamples",
]


class Interval(NamedTuple):
    """``low <= value <= high`` (nearly always); ``cases`` that entered, and ``left_out`` because they gave NaN."""

    value: float
    low: float
    high: float
    cases: int
    left_out: int


class Intervals(NamedTuple):
    """Intervals of many metrics, an array ``(metrics,)`` for each field of :class:`Interval`.

    They are float64, and int64 for the numbers of cases.
    """

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    cases: NDArray[np.int64]
    left_out: NDArray[np.int64]


def bootstrap_ratio(
    numerator: ArrayLike,
    denominator: ArrayLike,
    groups: Sequence[Hashable],
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Percentile interval of a ratio of sums over cases, ``sum_i a_i / sum_i b_i``, resampling whole subjects.

    All cases of a drawn subject come along, so that the interval reflects how subjects differ. The mean is the ratio
    with ``b_i = 1``; the accuracy of a reliability bin is the one with hits over voxels.

    Args:
        numerator: ``(cases, ...)``.
        denominator: same shape.
        groups: the subject of each case.
        level: coverage of the interval.
        samples: resamples drawn.
        seed: of the generator; the same seed gives the same interval.

    Returns: estimate, lower and upper bound, each of the trailing shape; NaN where the denominator is 0, and bounds
    NaN where fewer than two subjects have a denominator: one subject says nothing of how subjects differ.
    Raises: ``ValueError`` if the lengths differ or there is no case.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13.

    Example:
        >>> value, low, high = bootstrap_ratio([1.0, 2.0, 3.0], [2.0, 2.0, 2.0], ["a", "b", "c"])
        >>> float(value)
        1.0
        >>> bool(low <= value <= high)
        True
    """
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    if top.shape != bottom.shape:
        raise ValueError(f"denominator: expected the shape of the numerator, {top.shape}, got {bottom.shape}")
    _check(top, groups, level, samples)
    number = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    index = np.array([number[name] for name in groups])
    top, bottom = _sum_by_group(top, index, len(number)), _sum_by_group(bottom, index, len(number))
    shape = top.shape[1:]
    top, bottom = top.reshape(len(number), -1), bottom.reshape(len(number), -1)
    low, high = np.full((2, top.shape[1]), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (top.sum(axis=0) / bottom.sum(axis=0)).reshape(shape)
        told = (bottom != 0).sum(axis=0) > 1
        weights = resamples(len(number), samples, seed)
        drawn = (weights @ top) / (weights @ bottom)
    tail = (1.0 - level) / 2.0
    # A resample without any voxel of a bin says nothing about that bin; a bin that no case fills stays NaN.
    finite = np.isfinite(drawn)
    always, sometimes = finite.all(axis=0) & told, finite.any(axis=0) & ~finite.all(axis=0) & told
    # The same numbers either way; the one that looks for NaN takes several times as long.
    for quantile, chosen in ((np.quantile, always), (np.nanquantile, sometimes)):
        if chosen.any():
            low[chosen], high[chosen] = quantile(drawn[:, chosen], [tail, 1.0 - tail], axis=0)
    return value, low.reshape(shape), high.reshape(shape)


def bootstrap_mean(
    values: ArrayLike,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> Intervals:
    """Percentile bootstrap intervals of the means over cases, of many metrics at once.

    Args:
        values: ``(cases, metrics)`` or ``(cases,)``; NaN where a case has no value, which leaves it out of that metric.
        groups: what is drawn as a whole, one value a case: the subjects. Each case by itself by default.
        level: coverage of the interval.
        samples: number of resamplings, with replacement; the same ones for every metric.
        seed: of the resampling.

    Returns: :class:`Intervals`; NaN where no case has a value, and bounds NaN where fewer than two subjects have one.
    Raises: ``ValueError`` for no cases, groups of another length, or settings out of range.

    Example:
        >>> found = bootstrap_mean([[0.1, 1.0], [0.3, float("nan")], [0.2, 1.0]], groups=["a", "a", "b"])
        >>> found.value.round(3).tolist(), found.low.round(3).tolist(), found.cases.tolist()
        ([0.2, 1.0], [0.2, 1.0], [3, 2])
    """
    table = np.asarray(values, dtype=np.float64)
    table = table[:, None] if table.ndim == 1 else table
    _check(table, groups, level, samples)
    known = ~np.isnan(table)
    units = range(len(table)) if groups is None else groups
    value, low, high = bootstrap_ratio(
        np.where(known, table, 0.0), known.astype(np.float64), list(units), level, samples, seed
    )
    count = known.sum(0)
    return Intervals(value, low, high, count, len(table) - count)


def bootstrap_difference(
    before: ArrayLike,
    after: ArrayLike,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> Intervals:
    """Intervals of the mean paired difference ``after - before`` over cases, resampling subjects.

    Args:
        before, after: ``(cases, metrics)`` or ``(cases,)``, of the same cases in the same order. A case without a
            value in either is left out of that metric.
        groups, level, samples, seed: as in :func:`bootstrap_mean`.

    Raises: ``ValueError`` for shapes that differ, and as :func:`bootstrap_mean`.

    Example:
        >>> found = bootstrap_difference([0.1, 0.2, 0.4], [0.2, 0.2, 0.2], groups=["left", "left", "right"])
        >>> found.value.round(4).tolist(), found.low.round(4).tolist(), found.high.round(4).tolist()
        ([-0.0333], [-0.2], [0.05])
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"after: expected the shape of before, {first.shape}, got {second.shape}")
    return bootstrap_mean(second - first, groups, level, samples, seed)


def bootstrap_interval(
    cases: Sequence[CalibrationHistogram],
    measure: Callable[[CalibrationHistogram], float],
    reduction: Literal["macro", "micro"] = "macro",
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a calibration measure over cases.

    Args:
        cases: one histogram a case.
        measure: such as :func:`monai_calib.metrics.ece`, or ``lambda hist: ece(hist, class_index=2)``.
        reduction: ``"macro"``, the mean of the cases' values; ``"micro"``, the value of all cases added. Both are
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
    if reduction == "macro":
        mean = bootstrap_mean(values[known].numpy(), of_kept, level, samples, seed)
        return Interval(float(mean.value[0]), float(mean.low[0]), float(mean.high[0]), len(kept), left_out)
    pool = _Pool(kept)
    value = measure(pool.weighted(torch.ones(len(kept), dtype=torch.int64)))
    draws = _draws_of_cases(len(kept), of_kept, samples, seed)
    low, high = _quantiles(torch.tensor([measure(pool.weighted(w)) for w in draws], dtype=torch.float64), level)
    return Interval(value, float(low), float(high), len(kept), left_out)


def bootstrap_reliability(
    cases: Sequence[CalibrationHistogram],
    num_bins: int = 15,
    class_index: int | None = None,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
    samples: int = 2000,
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
    draws = _draws_of_cases(len(cases), groups, samples, seed)
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


def _check(cases: Any, groups: Sequence[Hashable] | None, level: float, samples: int) -> None:
    if not len(cases):
        raise ValueError("cases: expected at least one, got none")
    if groups is not None and len(groups) != len(cases):
        raise ValueError(f"groups: expected one a case, {len(cases)}, got {len(groups)}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected between 0 and 1, got {level}")
    if samples < 1:
        raise ValueError(f"samples: expected at least 1, got {samples}")


@lru_cache(maxsize=8)
def resamples(units: int, samples: int, seed: int) -> NDArray[np.float64]:
    """Count the times that each unit is drawn, ``(samples, units)``; every row sums to the number of units."""
    chance = np.full(units, 1.0 / units)
    drawn = np.random.default_rng(seed).multinomial(units, chance, size=samples).astype(np.float64)
    drawn.setflags(write=False)
    return drawn


def _draws_of_cases(cases: int, groups: Sequence[Hashable] | None, samples: int, seed: int) -> torch.Tensor:
    """Count the times that each case is drawn, with all of its group: int64 ``(samples, cases)``."""
    names = list(range(cases)) if groups is None else groups
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    drawn = resamples(len(number), samples, seed)
    return torch.from_numpy(drawn[:, [number[name] for name in names]].astype(np.int64))


def _sum_by_group(values: NDArray[np.float64], index: NDArray[np.intp], groups: int) -> NDArray[np.float64]:
    sums = np.zeros((groups, *values.shape[1:]))
    np.add.at(sums, index, values)
    return sums


def _quantiles(drawn: torch.Tensor, level: float) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = torch.nanquantile(drawn, torch.tensor([(1 - level) / 2, (1 + level) / 2]).double(), dim=0)
    return low, high
