"""Intervals and tests over subjects: bootstrap, paired Wilcoxon with Holm's correction, Friedman ranks with Nemenyi.

The subject is the unit of chance everywhere: two volumes of one patient are not two pieces of evidence, and neither
are the thousands of voxels of one volume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from monai_calib.metrics import bootstrap
from monai_calib.words import counted

__all__ = [
    "Interval",
    "PairedTest",
    "Ranking",
    "bootstrap_mean",
    "cliques",
    "friedman_nemenyi",
    "holm",
    "mean_by_subject",
    "paired_tests",
]

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """An estimate and the bounds of its confidence interval; with fewer than 2 subjects the bounds are NaN."""

    value: float
    low: float
    high: float

    def negated(self) -> Interval:
        """The interval of minus the estimate."""
        return Interval(-self.value, -self.high, -self.low)


class PairedTest(NamedTuple):
    """Two methods on the subjects both have: mean difference ``first - second``, its interval, and p values."""

    first: str
    second: str
    difference: Interval
    p_value: float
    p_holm: float
    num_subjects: int


class Ranking(NamedTuple):
    """Mean Friedman ranks (1 is best), the p value of "all equal", and Nemenyi's critical difference."""

    names: tuple[str, ...]
    mean_ranks: NDArray[np.float64]
    critical_difference: float
    p_value: float
    num_subjects: int


def bootstrap_mean(
    values: ArrayLike, subjects: Sequence[str], level: float = CONFIDENCE, seed: int = 0, samples: int = 2000
) -> Interval:
    """Mean over cases with its interval over subjects; cases without a finite value are left out.

    See :func:`monai_calib.metrics.bootstrap.bootstrap_mean`.

    Args:
        values: ``(cases,)``; NaN or infinite where a metric is undefined.
        subjects: the subject of each case.
        level: coverage of the interval.
        seed: of the generator.
        samples: resamples drawn.

    Returns: the :class:`Interval`; all NaN if no value is finite, bounds NaN with fewer than two subjects.

    Example:
        >>> bootstrap_mean([0.5, 0.5, float("nan")], ["1", "2", "3"])
        Interval(value=0.5, low=0.5, high=0.5)
    """
    numbers = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(numbers)
    if not finite.any():
        return Interval(np.nan, np.nan, np.nan)
    kept = [subject for subject, known in zip(subjects, finite, strict=True) if known]
    found = bootstrap.bootstrap_mean(numbers[finite], kept, level, samples, seed)
    return Interval(float(found.value[0]), float(found.low[0]), float(found.high[0]))


def mean_by_subject(values: ArrayLike, subjects: Sequence[str]) -> tuple[list[str], NDArray[np.float64]]:
    """One value a subject: the mean over its cases, NaN if any of them is undefined. Subjects come sorted.

    Example:
        >>> mean_by_subject([1.0, 3.0, 5.0], ["b", "b", "a"])
        (['a', 'b'], array([5., 2.]))
    """
    numbers = np.asarray(values, dtype=np.float64)
    names, index = np.unique(np.asarray(subjects), return_inverse=True)
    with np.errstate(invalid="ignore"):
        means = np.bincount(index, numbers, len(names)) / np.bincount(index, minlength=len(names))
    return [str(name) for name in names], means


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down correction: the i-th smallest of m p values is multiplied by ``m - i + 1``, then made monotone.

    NaN stands for a test that could not be made; it stays NaN and does not count.

    Source: Holm, Scandinavian Journal of Statistics 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    made = np.flatnonzero(np.isfinite(p))
    order = made[np.argsort(p[made], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted


def _wilcoxon(difference: NDArray[np.float64]) -> float:
    if len(difference) == 0:
        return float("nan")
    if not difference.any():
        return 1.0
    return float(stats.wilcoxon(difference).pvalue)


def paired_tests(values: Mapping[str, ArrayLike], subjects: Sequence[str], seed: int = 0) -> list[PairedTest]:
    """Wilcoxon's signed-rank test of every pair of methods over subjects, with Holm's correction over the pairs.

    Cases of a subject are averaged first; a subject that either method has no value for is left out of that pair.

    Args:
        values: per method, ``(cases,)`` in the same order of cases; NaN where undefined.
        subjects: the subject of each case.
        seed: of the bootstrap that gives the interval of the mean difference.

    Returns: one :class:`PairedTest` a pair, in the order of ``values``; p is NaN without a common subject.
    Source: Wilcoxon, Biometrics Bulletin 1945; Demšar, JMLR 2006.

    Example:
        >>> a, b = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.2, 0.4, 0.6, 0.8, 1.0, 1.2]
        >>> test = paired_tests({"a": a, "b": b}, list("123456"))[0]
        >>> test.num_subjects, round(test.difference.value, 3), test.p_value
        (6, -0.35, 0.03125)
    """
    by_subject = {name: mean_by_subject(column, subjects) for name, column in values.items()}
    pairs = list(combinations(by_subject, 2))
    tests = []
    for first, second in pairs:
        names, left = by_subject[first]
        right = by_subject[second][1]
        both = np.isfinite(left) & np.isfinite(right)
        difference = left[both] - right[both]
        kept = [name for name, keep in zip(names, both, strict=True) if keep]
        interval = bootstrap_mean(difference, kept, seed=seed)
        tests.append(PairedTest(first, second, interval, _wilcoxon(difference), np.nan, len(kept)))
    corrected = holm([test.p_value for test in tests])
    return [test._replace(p_holm=float(p)) for test, p in zip(tests, corrected, strict=True)]


def friedman_nemenyi(
    values: Mapping[str, ArrayLike], subjects: Sequence[str], lower_is_better: bool, confidence: float = CONFIDENCE
) -> Ranking:
    """Friedman's mean ranks of three or more methods over subjects, and Nemenyi's critical difference.

    Two methods differ if their mean ranks are further apart than ``q sqrt(k (k + 1) / (6 n))``, with ``q`` the
    studentized range quantile of ``k`` groups and infinite degrees of freedom divided by ``sqrt(2)``.

    Args:
        values: per method, ``(cases,)`` in the same order of cases; a subject with an undefined value is left out.
        subjects: the subject of each case.
        lower_is_better: rank 1 goes to the smallest value, else to the largest.
        confidence: one minus the level of the tests.

    Returns: the :class:`Ranking`, in the order of ``values``.
    Raises: ``ValueError`` if there are fewer than 3 methods or fewer than 2 complete subjects.
    Source: Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 2006.

    Example:
        >>> ranking = friedman_nemenyi({"a": [1, 1, 1], "b": [2, 2, 3], "c": [3, 3, 2]}, ["1", "2", "3"], True)
        >>> ranking.mean_ranks.round(2).tolist(), round(ranking.critical_difference, 3)
        ([1.0, 2.33, 2.67], 1.914)
    """
    names = tuple(values)
    table = np.stack([mean_by_subject(values[name], subjects)[1] for name in names], axis=1)
    table = table[np.isfinite(table).all(axis=1)]
    if len(names) < 3 or len(table) < 2:
        raise ValueError(
            "Friedman's test expects at least 3 methods and 2 subjects with a value of each; "
            f"got {counted(len(names), 'method')} and {counted(len(table), 'such subject')}."
        )
    count, size = table.shape
    ranks = stats.rankdata(table if lower_is_better else -table, axis=1)
    tied_everywhere = bool((ranks == ranks[:, :1]).all())
    p_value = 1.0 if tied_everywhere else float(stats.friedmanchisquare(*table.T).pvalue)
    quantile = stats.studentized_range.ppf(confidence, size, np.inf) / np.sqrt(2.0)
    critical = float(quantile * np.sqrt(size * (size + 1) / (6.0 * count)))
    return Ranking(names, ranks.mean(axis=0), critical, p_value, count)


def cliques(mean_ranks: ArrayLike, critical_difference: float) -> list[tuple[int, int]]:
    """Longest runs of methods, sorted by mean rank, that span no more than the critical difference.

    Args:
        mean_ranks: in any order.
        critical_difference: of :func:`friedman_nemenyi`.

    Returns: first and last position of each run in the sorted order, for runs of at least two, none inside another.

    Example:
        >>> cliques([1.0, 1.5, 3.0, 3.2], 1.6)
        [(0, 1), (1, 2), (2, 3)]
    """
    ranks = np.sort(np.asarray(mean_ranks, dtype=np.float64))
    last = np.searchsorted(ranks, ranks + critical_difference, side="right") - 1
    runs: list[tuple[int, int]] = []
    for start, end in enumerate(last.tolist()):
        if end > start and (not runs or end > runs[-1][1]):
            runs.append((start, end))
    return runs
