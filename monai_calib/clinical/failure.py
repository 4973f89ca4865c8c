"""Failure detection: whether a confidence puts the badly segmented cases last, judged where the truth is known."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_calib.metrics.bootstrap import Interval, resamples
from monai_calib.metrics.selective import augrc_of_groups, aurc_of_groups, tie_groups

from .quality import paired

__all__ = ["FailureDetection", "RiskCoverage", "failure_detection", "risk_coverage"]

_Array = NDArray[np.float64]


class RiskCoverage(NamedTuple):
    """Mean ``risk`` of the cases that are kept, at every ``coverage`` from the surest alone to all."""

    coverage: _Array
    risk: _Array


class FailureDetection(NamedTuple):
    """Quality of a confidence as a ranking of cases by ``1 - Dice``, with bootstrap intervals over subjects.

    Attributes:
        aurc: area under the risk-coverage curve, the mean risk over all coverages; smaller is better.
        random_aurc: that of a random order, the mean risk.
        perfect_aurc: that of ordering by the true Dice.
        e_aurc: excess, ``aurc - perfect_aurc``.
        augrc: area under the generalised risk-coverage curve, the average risk of failures that are not noticed; a
            random order has half the mean risk.
        spearman: rank correlation of confidence and true Dice.
    """

    aurc: Interval
    random_aurc: Interval
    perfect_aurc: Interval
    e_aurc: Interval
    augrc: Interval
    spearman: Interval


def failure_detection(
    confidence: ArrayLike,
    dice: ArrayLike,
    subjects: Sequence[Hashable] | None = None,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> FailureDetection:
    """Judge a confidence by how it ranks cases, with the risk ``1 - Dice``.

    Cases of equal confidence count with the expectation over their orders. A case without a confidence (NaN: nothing
    was predicted) counts as the least sure; one without a true Dice (NaN: the structure is in no label) is left out.

    Args:
        confidence: ``(n,)``, larger is surer, such as the expected Dice.
        dice: true Dice ``(n,)``.
        subjects: whose each case is; each its own by default. They are resampled as a whole.
        level, samples, seed: of the intervals, percentile bootstrap.

    Raises: ``ValueError`` for lengths that differ or fewer than two cases with a true Dice.
    Source: Zenk et al., Medical Image Analysis 101, 2025, https://arxiv.org/abs/2406.03323, of the benchmark; Traub et
        al., NeurIPS 2024, https://arxiv.org/abs/2407.01032, of the AUGRC.

    Example:
        >>> found = failure_detection([0.9, 0.8, 0.6], [0.95, 0.7, 0.75])
        >>> [round(found.aurc.value, 4), round(found.perfect_aurc.value, 4), round(found.random_aurc.value, 4)]
        [0.1417, 0.1333, 0.2]
        >>> round(found.spearman.value, 4)
        0.5
    """
    sure, true, whose = _cases(confidence, dice, subjects)
    number = {name: i for i, name in enumerate(dict.fromkeys(whose))}
    drawn = resamples(len(number), samples, seed)[:, [number[name] for name in whose]]
    weights = np.concatenate([np.ones((1, len(true))), drawn])
    groups, best = tie_groups(sure, 1 - true, weights), tie_groups(true, 1 - true, weights)
    area, perfect = aurc_of_groups(*groups[:2]), aurc_of_groups(*best[:2])
    columns = (
        area,
        weights @ (1 - true) / weights.sum(1),
        perfect,
        area - perfect,
        augrc_of_groups(*groups[:2]),
        _spearman(_ranks(groups.count)[:, groups.of_case], _ranks(best.count)[:, best.of_case], weights),
    )
    left_out = len(np.ravel(np.asarray(dice))) - len(true)
    tail = [(1 - level) / 2, (1 + level) / 2]
    intervals = []
    for column in columns:
        known = column[1:][np.isfinite(column[1:])]
        low, high = np.quantile(known, tail) if len(known) and len(number) > 1 else (np.nan, np.nan)
        intervals.append(Interval(float(column[0]), float(low), float(high), len(true), left_out))
    return FailureDetection(*intervals)


def risk_coverage(confidence: ArrayLike, dice: ArrayLike) -> RiskCoverage:
    """The curve of mean ``1 - Dice`` against the share of cases kept, the surest first.

    Cases of equal confidence have a point each, on which all orders are averaged, so that the mean of the curve is the
    AURC. NaN as in :func:`failure_detection`.

    Example:
        >>> curve = risk_coverage([0.9, 0.8, 0.6, 0.5], [1.0, 0.5, 0.75, 0.75])
        >>> curve.coverage.tolist(), curve.risk.tolist()
        ([0.25, 0.5, 0.75, 1.0], [0.0, 0.25, 0.25, 0.25])
    """
    sure, true, _ = _cases(confidence, dice, None)
    groups = tie_groups(sure, 1 - true)
    each = np.repeat(groups.loss / groups.count, groups.count.astype(np.int64))
    kept = np.arange(1, len(true) + 1)
    return RiskCoverage(kept / len(true), np.cumsum(each) / kept)


def _cases(
    confidence: ArrayLike, dice: ArrayLike, subjects: Sequence[Hashable] | None
) -> tuple[_Array, _Array, list[Hashable]]:
    """Cases with a true Dice."""
    sure, true, whose = paired(confidence, dice, subjects)
    known = ~np.isnan(true)
    if known.sum() < 2:
        raise ValueError(f"dice: expected at least two cases with a true Dice, got {known.sum()} of {len(true)}")
    return sure[known], true[known], [name for name, ok in zip(whose, known, strict=True) if ok]


def _ranks(count: _Array) -> _Array:
    """Middle rank of each group, from the numbers in them."""
    return np.asarray(np.cumsum(count, -1) - (count - 1) / 2)


def _spearman(first: _Array, second: _Array, weights: _Array) -> _Array:
    """Correlation of ranks ``(draws, n)``, each case counting so many times; NaN where one of them is constant."""
    total = weights.sum(1, keepdims=True)
    a = first - (weights * first).sum(1, keepdims=True) / total
    b = second - (weights * second).sum(1, keepdims=True) / total
    spread = (weights * a * a).sum(1) * (weights * b * b).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(spread > 1e-9, (weights * a * b).sum(1) / np.sqrt(spread), np.nan))
