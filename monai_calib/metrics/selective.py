"""Risk against coverage: what is left of the errors if the least sure are handed over first.

Things, voxels or cases, are ordered by a confidence; the *coverage* is the share that is kept, the surest first, and
the *risk* their mean loss: 1 for a wrong voxel, ``1 - Dice`` for a case. All comes down to groups of equal confidence,
each with its number and its summed loss, so that millions of voxels are as many groups as a histogram has bins.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma

from monai_calib.metrics.histogram import CalibrationHistogram

__all__ = ["Bounded", "TieGroups", "augrc", "augrc_of_groups", "aurc", "aurc_of_groups", "excess_aurc", "tie_groups"]

_Array = NDArray[np.float64]
_TABLE = 10**5


class Bounded(NamedTuple):
    """A value, and the least and the largest that it can be: ``low <= value <= high``."""

    value: float
    low: float
    high: float


class TieGroups(NamedTuple):
    """Groups of equal confidence, the surest first: ``count`` and summed ``loss``, the last axis running over groups.

    ``of_case`` is the group of each case.
    """

    count: _Array  # type: ignore[assignment]
    loss: _Array
    of_case: NDArray[np.intp]


def aurc(hist: CalibrationHistogram) -> Bounded:
    """Area under the risk-coverage curve of the voxels: the mean over ``i`` of the error rate of the ``i`` surest.

    ``1 / N * sum_i (errors among the i voxels of largest confidence) / i``, of the top label. Voxels of a fine bin
    count as equally confident: ``value`` is the expectation over their orders, ``low`` has the right ones first and
    ``high`` the wrong ones, and the AURC of the voxels sorted exactly lies between. NaN of no voxel.

    Source: Geifman, Uziel and El-Yaniv, ICLR 2019; https://arxiv.org/abs/1805.08206

    Example:
        >>> import torch
        >>> hist = CalibrationHistogram(2)
        >>> p = torch.tensor([0.9, 0.7, 0.7, 0.6])  # right, right, wrong, right
        >>> hist.update(torch.stack([p, 1 - p])[None], torch.tensor([[0, 0, 1, 0]]), from_logits=False)
        >>> [round(x, 4) for x in aurc(hist)]  # (0 + 1/4 + 1/3 + 1/4) / 4; the second of them is 0 or 1/2
        [0.2083, 0.1458, 0.2708]
    """
    count, loss = _voxels(hist)
    if not count.sum():
        return Bounded(math.nan, math.nan, math.nan)
    before, errors_before = np.cumsum(count) - count, np.cumsum(loss) - loss
    right = count - loss
    low = errors_before * _harmonic(before, right)
    low += loss + (errors_before - before - right) * _harmonic(before + right, loss)
    high = loss + (errors_before - before) * _harmonic(before, loss)
    high += (errors_before + loss) * _harmonic(before + loss, right)
    total = count.sum()
    return Bounded(float(aurc_of_groups(count, loss)), float(low.sum() / total), float(high.sum() / total))


def excess_aurc(hist: CalibrationHistogram) -> Bounded:
    """AURC of the voxels less that of a perfect order, which has every right voxel before every wrong one (E-AURC).

    0 for a confidence that tells right from wrong, whatever the accuracy; bounds as of :func:`aurc`.

    Source: Geifman, Uziel and El-Yaniv, ICLR 2019; https://arxiv.org/abs/1805.08206. Theirs approximates the sum of the
    perfect order by an integral; this one is the sum.

    Example:
        >>> import torch
        >>> hist = CalibrationHistogram(2)
        >>> p = torch.tensor([0.9, 0.8, 0.7, 0.6])  # right, wrong, right, right: (1/2 + 1/3 + 1/4) / 4
        >>> hist.update(torch.stack([p, 1 - p])[None], torch.tensor([[0, 1, 0, 0]]), from_logits=False)
        >>> round(excess_aurc(hist).value, 4)  # a perfect order has (0 + 0 + 0 + 1/4) / 4
        0.2083
    """
    count, loss = _voxels(hist)
    if not count.sum():
        return Bounded(math.nan, math.nan, math.nan)
    errors, right = loss.sum(), (count - loss).sum()
    best = float(aurc_of_groups(*_filled(np.array([right, errors]), np.array([0.0, errors]))))
    return Bounded(*(value - best for value in aurc(hist)))


def augrc(hist: CalibrationHistogram) -> Bounded:
    """Area under the generalised risk-coverage curve of the voxels: the average risk of an error that is not noticed.

    The generalised risk is the share of **all** voxels that are kept and wrong, so that, other than in the AURC, every
    error weighs the same at every coverage it is kept at. ``1 / N^2 * sum_i (S_(i-1) + S_i) / 2``, with ``S_i`` the
    errors among the ``i`` surest; half the error rate for a confidence that tells nothing. Bounds as of :func:`aurc`.

    Source: Traub et al., NeurIPS 2024; https://arxiv.org/abs/2407.01032

    Example:
        >>> import torch
        >>> hist = CalibrationHistogram(2)
        >>> p = torch.tensor([0.9, 0.8, 0.7, 0.6])  # right, right, right, wrong
        >>> hist.update(torch.stack([p, 1 - p])[None], torch.tensor([[0, 0, 0, 1]]), from_logits=False)
        >>> augrc(hist).value  # (0 + 0 + 0 + 1/2) / 4^2
        0.03125
    """
    count, loss = _voxels(hist)
    if not count.sum():
        return Bounded(math.nan, math.nan, math.nan)
    before, total = np.cumsum(loss) - loss, count.sum()
    low = count * before + loss**2 / 2
    high = count * before + loss * (count - loss / 2)
    areas = (float(side.sum() / total**2) for side in (low, high))
    return Bounded(float(augrc_of_groups(count, loss)), *areas)


def tie_groups(confidence: ArrayLike, loss: ArrayLike, weights: ArrayLike | None = None) -> TieGroups:
    """Group cases of equal confidence, the surest first.

    Args:
        confidence: ``(n,)``, larger is surer; infinite values may be among them, NaN not.
        loss: ``(n,)``.
        weights: ``(..., n)``, how often each case counts, such as the draws of a bootstrap; once each by default.

    Example:
        >>> groups = tie_groups([0.9, 0.8, 0.9], [0.1, 0.5, 0.3])
        >>> groups.count.tolist(), groups.loss.tolist()
        ([2.0, 1.0], [0.4, 0.5])
    """
    sure = np.asarray(confidence, dtype=np.float64)
    order = np.argsort(-sure, kind="stable")
    ordered = sure[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    place = np.empty(len(sure), dtype=np.intp)
    place[order] = np.repeat(np.arange(len(first)), np.diff(first, append=len(sure)))
    times = np.ones(len(sure)) if weights is None else np.asarray(weights, dtype=np.float64)
    sides = (times, times * np.asarray(loss, dtype=np.float64))
    count, lost = (side[..., order] for side in sides)
    if len(first) < len(sure):
        count, lost = (np.add.reduceat(side, first, axis=-1) for side in (count, lost))
    return TieGroups(count, lost, place)


def aurc_of_groups(count: _Array, loss: _Array) -> _Array:
    """AURC of groups of equal confidence, the surest first, the last axis running over them; see :func:`aurc`.

    Within a group the expectation over all orders is taken: ``sum_i (S + (i - m) l) / i`` over the places ``i`` of the
    group, with ``m`` and ``S`` the number and the loss before it and ``l`` its mean loss, by the digamma function.

    Example:
        >>> aurc_of_groups(np.array([2.0, 1.0]), np.array([1.0, 0.0]))  # (1/2 + 1/2 + 1/3) / 3
        array(0.4444...)
    """
    before, lost = np.cumsum(count, -1) - count, np.cumsum(loss, -1) - loss
    mean = np.divide(loss, count, out=np.zeros_like(loss), where=count > 0)
    number = _numbers(np.concatenate([np.zeros_like(count[..., :1]), np.cumsum(count, -1)], -1))
    total = loss + (lost - before * mean) * np.diff(number, axis=-1)
    return np.asarray(total.sum(-1) / count.sum(-1))


def augrc_of_groups(count: _Array, loss: _Array) -> _Array:
    """AUGRC of groups of equal confidence, the surest first, the last axis running over them; see :func:`augrc`.

    Example:
        >>> augrc_of_groups(np.array([2.0, 2.0]), np.array([0.0, 2.0]))
        array(0.125)
    """
    lost = np.cumsum(loss, -1) - loss
    return np.asarray((count * (lost + loss / 2)).sum(-1) / count.sum(-1) ** 2)


def _voxels(hist: CalibrationHistogram) -> tuple[_Array, _Array]:
    """Voxels and errors of the fine bins that hold some, the surest first."""
    bins = hist.bins()
    count = bins.count.double().numpy()[::-1]
    return _filled(count, count - bins.hits.double().numpy()[::-1])


def _filled(count: _Array, loss: _Array) -> tuple[_Array, _Array]:
    return count[count > 0], loss[count > 0]


def _numbers(n: _Array) -> _Array:
    """Harmonic numbers ``1 + 1/2 + ... + 1/n``, but for a constant: by table, of many voxels by digamma."""
    most = n.max(initial=0)
    if most > _TABLE:
        return np.asarray(digamma(n + 1))
    table = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int(most) + 1))])
    return np.asarray(table[n.astype(np.intp)])


def _harmonic(start: Any, number: Any) -> Any:
    """``1 / (start + 1) + ... + 1 / (start + number)``."""
    return digamma(start + number + 1) - digamma(start + 1)
