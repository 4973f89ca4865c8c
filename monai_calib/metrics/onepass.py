"""The CPU's way to fill the sums of a softmax histogram: every value is read once, in blocks that stay in the cache.

The same statistics as :mod:`monai_calib.metrics.sums` computes with PyTorch. What costs time is not arithmetic, which
runs in vector instructions, but adding to bins, one voxel and class after the other. So count and confidence go into
a bin with a single addition (see :data:`_COUNT`), and voxels take turns between four copies of the bins, since nearly
all background voxels meet in the same one, where an addition must wait for the last.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from monai_calib.compiled import BLOCK, exp_in_place, jit, log_in_place, on_threads
from monai_calib.metrics.bins import (
    ABOVE_ONE,
    BELOW_ONE,
    LOWER_HALF,
    TAIL,
    TAIL_LOW,
    UPPER_THIRD,
    fine_edges,
    fine_index,
    tail_bins,
)
from monai_calib.metrics.inputs import Flat
from monai_calib.metrics.sums import FIXED_POINT, SMALLEST_PROBABILITY, Sums, class_numbers, sum_tolerance

__all__ = ["add_flat_compiled"]

_SLAB_VOXELS = 2**20
_EXCLUDED = np.int32(-(2**31))  # instead of a class number: outside the mask, or to be ignored

# Count and confidence share 64 bits: 17 for the voxels, below them 47 for the sum of confidences in units of 2^-30.
_COUNT = np.uint64(1 << 47)
_COUNT_SHIFT = np.uint64(47)
_CONFIDENCE_MASK = np.uint64((1 << 47) - 1)
_BLOCKS_A_FLUSH = (2**17 - 1) // BLOCK
_COPIES = 4

_ZERO, _ONE, _SLACK = np.float32(0), np.float32(1), np.float32(1e-6)
_FIXED_POINT, _TINY = np.float32(FIXED_POINT), np.float32(SMALLEST_PROBABILITY)
_TAIL, _TAIL_LOW = np.float32(TAIL), np.float32(TAIL_LOW)
_LOWER_HALF, _UPPER_THIRD = np.float32(LOWER_HALF), np.float32(UPPER_THIRD)


@jit
def _softmax_block(x, stride, first, p, top, scale, finite, bits):
    """Fill ``p`` with exp(x - max), ``top`` with the largest logit, ``scale`` with the sum of ``p``."""
    n = top.size
    row = x[first : first + n]
    for i in range(n):
        top[i] = row[i]
        finite[i] = row[i] * _ZERO  # NaN if it is NaN or infinite
    scale[:] = _ZERO
    for k in range(1, p.shape[0]):
        row = x[first + k * stride : first + k * stride + n]
        for i in range(n):
            top[i] = row[i] if row[i] > top[i] else top[i]
            finite[i] += row[i] * _ZERO
    for k in range(p.shape[0]):
        row = x[first + k * stride : first + k * stride + n]
        pk = p[k, :n]
        for i in range(n):
            pk[i] = row[i] - top[i]
        exp_in_place(pk, bits)
        for i in range(n):
            scale[i] += pk[i]


@jit
def _probability_block(x, stride, first, p, top, scale, finite, proper, tolerance):
    """Copy ``x`` to ``p``; ``scale`` is 1, and ``proper`` says where the values are probabilities."""
    n = top.size
    proper[:] = 1
    top[:] = -_ONE
    finite[:] = _ZERO
    scale[:] = _ZERO
    for k in range(p.shape[0]):
        row = x[first + k * stride : first + k * stride + n]
        pk = p[k, :n]
        for i in range(n):
            top[i] = row[i] if row[i] > top[i] else top[i]
            finite[i] += row[i] * _ZERO
            scale[i] += row[i]
        for i in range(n):
            proper[i] &= np.int32((row[i] >= -_SLACK) & (row[i] <= _ONE + tolerance))
            pk[i] = min(max(row[i], _ZERO), _ONE)
    for i in range(n):
        proper[i] &= np.int32(abs(scale[i] - _ONE) <= tolerance)
        top[i] = min(max(top[i], _ZERO), _ONE)
        scale[i] = _ONE


@jit
def _judge_block(number, classes, finite, proper, y, use, problems):
    """``use`` is 1 for voxels to be counted; the others are excluded, or a problem. Returns how many are used.

    ``y`` is the class of a used voxel, and ``classes``, which is none, of the others.
    """
    n = number.size
    used = np.int32(0)
    for i in range(n):
        right = np.int32((number[i] >= 0) & (number[i] < classes))
        use[i] = right & proper[i] & np.int32(finite[i] == _ZERO)
        y[i] = number[i] if use[i] != 0 else classes
        used += use[i]
    if used < n:
        for i in range(n):
            if number[i] == _EXCLUDED:
                continue
            if finite[i] != _ZERO:
                problems[0] += 1
            elif not proper[i]:
                problems[1] += 1
            if number[i] < 0 or number[i] >= classes:
                problems[2] += 1
    return used


@jit
def _bin_row(p, weight, y, k, factors, tail, bins, index, fixed, error):
    """Weigh a row to probabilities: their bins (as ``bins.fine_index``), in fixed point, and in the Brier score."""
    below, above, plain = factors
    for i in range(p.size):
        v = p[i] * weight[i] if weight[i] != _ZERO else _ZERO  # p of an unused voxel may be NaN
        d = v - (_ONE if y[i] == k else _ZERO)
        error[i] += d * d
        factor = below if v < _LOWER_HALF else (above if v < _UPPER_THIRD else plain)
        middle = np.int32(np.ceil(v * factor)) + tail - np.int32(1)
        low = np.int32(np.ceil(v * _TAIL_LOW))
        high = bins - np.int32((_ONE - v) * _TAIL)
        index[i] = max(max(min(low, middle), high), np.int32(1)) - np.int32(1)
        fixed[i] = np.int32(v * _FIXED_POINT)


@jit
def _scatter_row(index, fixed, packed):
    for i in range(index.size // _COPIES):
        for turn in range(_COPIES):
            j = np.uint64(_COPIES * i + turn)
            packed[turn, np.uint64(index[j])] += _COUNT + np.uint64(fixed[j])
    for i in range(index.size // _COPIES * _COPIES, index.size):
        packed[0, np.uint64(index[i])] += _COUNT + np.uint64(fixed[i])


@jit
def _hit_block(y, index, right):
    """Count the true class of each voxel in the bin its probability fell in."""
    for i in range(y.size // _COPIES):
        for turn in range(_COPIES):
            j = np.uint64(_COPIES * i + turn)
            k = np.uint64(y[j])
            right[k, turn, np.uint64(index[k, j])] += 1
    for i in range(y.size // _COPIES * _COPIES, y.size):
        right[y[i], 0, index[y[i], i]] += 1


@jit
def _top_block(x, stride, first, largest, sure, use, y, index, packed, right):
    """Bin the top label of the used voxels in which no class is ``sure``, i.e. has more by itself."""
    doubtful = np.int32(0)
    for i in range(use.size):
        doubtful += use[i] & np.int32(largest[i] <= sure)
    if doubtful == 0:
        return
    for i in range(use.size):
        if use[i] != 0 and largest[i] <= sure:
            winner = 0
            for k in range(1, index.shape[0] - 1):
                if x[first + k * stride + i] > x[first + winner * stride + i]:
                    winner = k
            number = np.uint64(index[winner, i])
            packed[number] += _COUNT + np.uint64(np.int32(largest[i] * _FIXED_POINT))
            right[number] += np.int64(winner == y[i])


@jit
def _flush(packed, top, count, confidence):
    classes, copies, bins = packed.shape
    for k in range(classes):
        for copy in range(copies):
            for j in range(bins):
                word = packed[k, copy, j]
                count[k, j] += np.int64(word >> _COUNT_SHIFT)
                confidence[k, j] += np.int64(word & _CONFIDENCE_MASK)
    for j in range(bins):
        count[classes, j] += np.int64(top[j] >> _COUNT_SHIFT)
        confidence[classes, j] += np.int64(top[j] & _CONFIDENCE_MASK)
    packed[:] = 0
    top[:] = 0


@jit
def _one_pass(x, stride, offset, number, start, stop, factors, tail, bins, sure, from_logits, tolerance, classes):
    """Sums of the voxels ``start ... stop`` of ``number``; class k of voxel i is ``x[offset + k * stride + i]``.

    The last row of the sums is the top label's. Where a class has more than half, it is the top label, and it alone is
    in the upper half of the bins: there the top label's row is the sum of the classes' rows. Only the voxels without
    such a class are binned once more. ``sure`` is that half, a little more for probabilities, whose sum may pass 1.
    """
    packed = np.zeros((classes, _COPIES, bins), np.uint64)
    packed_top = np.zeros(bins, np.uint64)
    count = np.zeros((classes + 1, bins), np.int64)
    confidence = np.zeros((classes + 1, bins), np.int64)
    right = np.zeros((classes + 1, _COPIES, bins), np.int64)
    right_top = np.zeros(bins, np.int64)
    scores = np.zeros(2, np.float64)
    problems = np.zeros(5, np.int64)
    sure, sure_bin = sure
    p = np.empty((classes, BLOCK), np.float32)
    index = np.zeros((classes + 1, BLOCK), np.int32)  # the last row is the bin of voxels that have no class
    floats = np.empty((4, BLOCK), np.float32)
    ints = np.empty((5, BLOCK), np.int32)
    unused = 0
    blocks = 0
    for begin in range(start, stop, BLOCK):
        n = min(BLOCK, stop - begin)
        first = offset + begin
        top, scale, finite, error = floats[0][:n], floats[1][:n], floats[2][:n], floats[3][:n]
        proper, use, y, fixed, bits = ints[0][:n], ints[1][:n], ints[2][:n], ints[3][:n], ints[4][:n]
        if from_logits:
            proper[:] = 1
            _softmax_block(x, stride, first, p, top, scale, finite, bits)
        else:
            _probability_block(x, stride, first, p, top, scale, finite, proper, tolerance)
        used = _judge_block(number[begin : begin + n], classes, finite, proper, y, use, problems)
        if used == 0:
            continue

        # An unused voxel weighs nothing: it falls in the first bin without confidence, and is taken off there.
        unused += n - used
        weight = finite  # it has told what it had to
        for i in range(n):
            weight[i] = _ONE / scale[i] if use[i] != 0 else _ZERO
        error[:] = _ZERO
        for k in range(classes):
            _bin_row(p[k][:n], weight, y, np.int32(k), factors, tail, bins, index[k][:n], fixed, error)
            _scatter_row(index[k][:n], fixed, packed[k])
        _hit_block(y, index, right)
        largest = weight if from_logits else top
        _top_block(x, stride, first, largest, sure, use, y, index, packed_top, right_top)

        # The negative log-likelihood is log(scale) + top - logit of the true class, or -log of its probability.
        wrong = 0.0
        for i in range(n):
            if use[i] == 0:
                scale[i] = _ONE
            elif from_logits:
                wrong += np.float64(top[i] - x[np.uint64(first + y[i] * stride + i)])
            else:
                true = p[np.uint64(y[i]), i]
                problems[4] += np.int64(true < _TINY)
                scale[i] = _ONE / max(true, _TINY)
        log_in_place(scale, bits)
        square = 0.0
        for i in range(n):
            wrong += np.float64(scale[i])
            square += np.float64(error[i])
        scores[0] += wrong
        scores[1] += square

        blocks += 1
        if blocks == _BLOCKS_A_FLUSH:
            _flush(packed, packed_top, count, confidence)
            blocks = 0
    _flush(packed, packed_top, count, confidence)
    hits = right.sum(axis=1)
    hits[classes] = right_top
    count[:classes, 0] -= unused
    for k in range(classes):
        count[classes, sure_bin:] += count[k, sure_bin:]
        confidence[classes, sure_bin:] += confidence[k, sure_bin:]
        hits[classes, sure_bin:] += hits[k, sure_bin:]
    return count, hits, confidence, scores, problems


@lru_cache(maxsize=16)
def _sure(num_bins: int, from_logits: bool) -> tuple[np.float32, int]:
    """The largest probability that does not make a class the top label by itself, and the first bin above it."""
    upper = int(fine_index(torch.tensor(0.5 if from_logits else 0.6), num_bins)) + 1
    return np.float32(fine_edges(num_bins)[upper]), upper


def _numbers(flat: Flat, b: int, part: slice, classes: int, ignore_index: int | None) -> np.ndarray:
    """Class numbers int32: -1 if wrong, ``_EXCLUDED`` if outside the mask or to be ignored."""
    number, wrong, ignored = class_numbers(flat.label[b, ..., part], classes, ignore_index)
    number = number.int()
    if wrong is not None:
        number = number.masked_fill(wrong, -1)
    excluded = None if flat.mask is None else flat.mask[b, part] == 0
    if ignored is not None:
        excluded = ignored if excluded is None else excluded | ignored
    if excluded is not None:
        number = number.masked_fill(excluded, int(_EXCLUDED))
    return number.contiguous().numpy()


def add_flat_compiled(sums: Sums, flat: Flat, num_bins: int, from_logits: bool, ignore_index: int | None) -> None:
    """Add a softmax batch on the CPU to ``sums``; see :func:`monai_calib.metrics.sums.add_flat`."""
    batch, classes, voxels = flat.prediction.shape
    tail = tail_bins(num_bins)
    bins = np.int32(num_bins + 2 * tail - 2)
    factors = (np.float32(BELOW_ONE * num_bins), np.float32(ABOVE_ONE * num_bins), np.float32(num_bins))
    sure = _sure(num_bins, from_logits)
    tolerance = np.float32(sum_tolerance(flat.prediction.dtype))
    direct = flat.prediction.dtype == torch.float32 and flat.prediction.is_contiguous()
    copies_nothing = direct and flat.label.ndim == 2
    slab = _SLAB_VOXELS if copies_nothing else max(16 * BLOCK, _SLAB_VOXELS // classes)
    whole = flat.prediction.reshape(-1).numpy() if direct else None
    for b in range(batch):
        for begin in range(0, voxels, slab):
            part = slice(begin, min(begin + slab, voxels))
            size = part.stop - begin
            if whole is not None:
                x, stride, offset = whole, voxels, b * classes * voxels + begin
            else:
                x = flat.prediction[b, :, part].float().reshape(-1).numpy()
                stride, offset = size, 0
            number = _numbers(flat, b, part, classes, ignore_index)

            def kernel(start: int, stop: int, x=x, stride=stride, offset=offset, number=number):
                layout = (x, stride, offset, number, start, stop)
                return _one_pass(*layout, factors, np.int32(tail), bins, sure, from_logits, tolerance, classes)

            for count, hits, confidence, scores, problems in on_threads(kernel, size):
                sums.count += torch.from_numpy(count)
                sums.hits += torch.from_numpy(hits)
                sums.confidence += torch.from_numpy(confidence).double() / FIXED_POINT
                sums.scores += torch.from_numpy(scores)
                sums.problems += torch.from_numpy(problems)
