"""The CPU's way to fill the sums of a softmax histogram: every value is read once, in blocks that stay in the cache.

The same statistics as :mod:`monai_calib.metrics.sums` computes with PyTorch. What costs time is not arithmetic, which
runs in vector instructions, but adding to bins, one voxel and class after the other. So count and confidence go into
a bin with a single addition (see :data:`_COUNT`), and voxels take turns between four copies of the bins, since nearly
all background voxels meet in the same one, where an addition must wait for the last.
"""

from __future__ import annotations

import numpy as np
import torch

from monai_calib.compiled import BLOCK, exp_in_place, jit, on_threads
from monai_calib.metrics.bins import ABOVE_ONE, BELOW_ONE, LOWER_HALF, TAIL, TAIL_LOW, UPPER_THIRD, tail_bins
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
_PRODUCT = 8  # logarithms are taken of products of this many numbers, the smallest 1e-38, within float64's range

_ZERO, _ONE, _SLACK = np.float32(0), np.float32(1), np.float32(1e-6)
_FIXED_POINT, _TINY = np.float32(FIXED_POINT), np.float32(SMALLEST_PROBABILITY)
_TAIL, _TAIL_LOW = np.float32(TAIL), np.float32(TAIL_LOW)
_LOWER_HALF, _UPPER_THIRD = np.float32(LOWER_HALF), np.float32(UPPER_THIRD)


@jit
def _softmax_block(x, stride, first, p, top, scale, winner, finite, bits):
    """Fill ``p`` with exp(x - max), ``top`` with the largest logit, ``scale`` with the sum of ``p``."""
    n = top.size
    row = x[first : first + n]
    for i in range(n):
        top[i] = row[i]
        finite[i] = row[i] * _ZERO  # NaN if it is NaN or infinite
    winner[:] = 0
    scale[:] = _ZERO
    for k in range(1, p.shape[0]):
        row = x[first + k * stride : first + k * stride + n]
        for i in range(n):
            winner[i] = np.int32(k) if row[i] > top[i] else winner[i]
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
def _probability_block(x, stride, first, p, top, scale, winner, finite, proper, tolerance):
    """Copy ``x`` to ``p``; ``scale`` is 1, and ``proper`` says where the values are probabilities."""
    n = top.size
    winner[:] = 0
    proper[:] = 1
    top[:] = -_ONE
    finite[:] = _ZERO
    scale[:] = _ZERO
    for k in range(p.shape[0]):
        row = x[first + k * stride : first + k * stride + n]
        pk = p[k, :n]
        for i in range(n):
            winner[i] = np.int32(k) if row[i] > top[i] else winner[i]
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
    """``use`` is 1 for voxels to be counted; the others are excluded, or a problem. Returns how many are used."""
    n = number.size
    used = np.int32(0)
    for i in range(n):
        right = np.int32((number[i] >= 0) & (number[i] < classes))
        y[i] = number[i] * right
        use[i] = right & proper[i] & np.int32(finite[i] == _ZERO)
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
def _bin_row(p, use, factors, tail, bins, index, fixed):
    """As ``bins.fine_index``, and confidence in fixed point; unused voxels go to the bin past the last, worth 0."""
    below, above, plain = factors
    for i in range(p.size):
        v = p[i]
        factor = below if v < _LOWER_HALF else (above if v < _UPPER_THIRD else plain)
        middle = np.int32(np.ceil(v * factor)) + tail - np.int32(1)
        low = np.int32(np.ceil(v * _TAIL_LOW))
        high = bins - np.int32(np.floor((_ONE - v) * _TAIL))
        j = max(max(min(low, middle), high), np.int32(1)) - np.int32(1)
        index[i] = j if use[i] != 0 else bins
        fixed[i] = np.int32(v * _FIXED_POINT) if use[i] != 0 else np.int32(0)


@jit
def _scatter_row(index, fixed, packed):
    for i in range(index.size // _COPIES):
        for turn in range(_COPIES):
            j = np.uint64(_COPIES * i + turn)
            packed[turn, np.uint64(index[j])] += _COUNT + np.uint64(fixed[j])
    for i in range(index.size // _COPIES * _COPIES, index.size):
        packed[0, np.uint64(index[i])] += _COUNT + np.uint64(fixed[i])


@jit
def _hit_block(y, winner, index, right):
    """Count the true class of each voxel in the bin its probability fell in, and the top label's if it is right."""
    top = index.shape[0] - 1
    for i in range(y.size // _COPIES):
        for turn in range(_COPIES):
            j = np.uint64(_COPIES * i + turn)
            k = np.uint64(y[j])
            right[k, turn, np.uint64(index[k, j])] += 1
            right[top, turn, np.uint64(index[top, j])] += np.int64(winner[j] == y[j])
    for i in range(y.size // _COPIES * _COPIES, y.size):
        right[y[i], 0, index[y[i], i]] += 1
        right[top, 0, index[top, i]] += np.int64(winner[i] == y[i])


@jit
def _flush(packed, count, confidence):
    rows, bins = count.shape
    for row in range(rows):
        for copy in range(_COPIES):
            for j in range(bins):
                word = packed[row, copy, j]
                count[row, j] += np.int64(word >> _COUNT_SHIFT)
                confidence[row, j] += np.int64(word & _CONFIDENCE_MASK)
    packed[:] = 0


@jit
def _weigh_row(p, inverse, use, y, k, error):
    """Make a row of probabilities of exponentials, 0 where unused, and add its part of the Brier score."""
    for i in range(p.size):
        v = p[i] * inverse[i] if use[i] != 0 else _ZERO
        p[i] = v
        d = v - (_ONE if y[i] == k else _ZERO)
        error[i] += d * d


@jit
def _one_pass(x, stride, offset, number, start, stop, factors, tail, bins, from_logits, tolerance, classes):
    """Sums of the voxels ``start ... stop`` of ``number``; class k of voxel i is ``x[offset + k * stride + i]``."""
    packed = np.zeros((classes + 1, _COPIES, bins + 1), np.uint64)
    count = np.zeros((classes + 1, bins), np.int64)
    right = np.zeros((classes + 1, _COPIES, bins + 1), np.int64)
    confidence = np.zeros((classes + 1, bins), np.int64)
    scores = np.zeros(2, np.float64)
    problems = np.zeros(5, np.int64)
    p = np.empty((classes + 1, BLOCK), np.float32)
    index = np.empty((classes + 1, BLOCK), np.int32)
    floats = np.empty((4, BLOCK), np.float32)
    ints = np.empty((6, BLOCK), np.int32)
    blocks = 0
    for begin in range(start, stop, BLOCK):
        n = min(BLOCK, stop - begin)
        first = offset + begin
        top, scale, finite, error = floats[0, :n], floats[1, :n], floats[2, :n], floats[3, :n]
        winner, proper, use, y, fixed, bits = (
            ints[0, :n],
            ints[1, :n],
            ints[2, :n],
            ints[3, :n],
            ints[4, :n],
            ints[5, :n],
        )
        if from_logits:
            proper[:] = 1
            _softmax_block(x, stride, first, p[:classes], top, scale, winner, finite, bits)
        else:
            _probability_block(x, stride, first, p[:classes], top, scale, winner, finite, proper, tolerance)
        if _judge_block(number[begin : begin + n], classes, finite, proper, y, use, problems) == 0:
            continue

        inverse = finite  # it has told what it had to
        largest = p[classes, :n]
        for i in range(n):
            inverse[i] = _ONE / scale[i]
            largest[i] = (inverse[i] if from_logits else top[i]) if use[i] != 0 else _ZERO
        error[:] = _ZERO
        for k in range(classes):
            _weigh_row(p[k, :n], inverse, use, y, k, error)
        for k in range(classes + 1):
            _bin_row(p[k, :n], use, factors, tail, bins, index[k, :n], fixed)
            _scatter_row(index[k, :n], fixed, packed[k])

        _hit_block(y, winner, index, right)
        wrong = 0.0
        square = 0.0
        for i in range(n):
            square += np.float64(error[i]) if use[i] != 0 else 0.0
            if from_logits:
                short = top[i] - x[np.uint64(first + y[i] * stride + i)]
                wrong += np.float64(short) if use[i] != 0 else 0.0
        scores[0] += wrong
        scores[1] += square
        for i in range(n):
            if use[i] == 0:
                scale[i] = _ONE
            elif not from_logits:
                true = p[np.uint64(y[i]), i]
                problems[4] += np.int64(true < _TINY)
                scale[i] = max(true, _TINY)
        log_scale = 0.0
        for i in range(0, n, _PRODUCT):
            product = 1.0
            for j in range(i, min(i + _PRODUCT, n)):
                product *= np.float64(scale[j])
            log_scale += np.log(product)
        scores[0] += log_scale if from_logits else -log_scale

        blocks += 1
        if blocks == _BLOCKS_A_FLUSH:
            _flush(packed, count, confidence)
            blocks = 0
    _flush(packed, count, confidence)
    hits = right[:, :, :bins].sum(axis=1)
    return count, hits, confidence, scores, problems


def _numbers(flat: Flat, b: int, part: slice, classes: int, ignore_index: int | None) -> np.ndarray:
    """Class numbers int32: -1 or ``classes`` if out of range, ``_EXCLUDED`` if outside the mask or to be ignored."""
    label = flat.label[b, ..., part]
    ignored = None if ignore_index is None else (label if label.ndim == 1 else class_numbers(label)[0]) == ignore_index
    if label.ndim == 2 or label.is_floating_point():
        number, wrong = class_numbers(label)
        label = torch.where(wrong, -1, number)
    if label.dtype not in (torch.bool, torch.uint8, torch.int8, torch.int16):  # they cannot hold _EXCLUDED
        label = label.clamp(-1, classes)
    number = label.int()
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
                return _one_pass(*layout, factors, np.int32(tail), bins, from_logits, tolerance, classes)

            for count, hits, confidence, scores, problems in on_threads(kernel, size):
                sums.count += torch.from_numpy(count)
                sums.hits += torch.from_numpy(hits)
                sums.confidence += torch.from_numpy(confidence).double() / FIXED_POINT
                sums.scores += torch.from_numpy(scores)
                sums.problems += torch.from_numpy(problems)
