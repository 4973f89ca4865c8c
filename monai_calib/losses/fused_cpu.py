"""Compiled sweep behind :mod:`.fused`: loss and gradient, block by block."""

from __future__ import annotations

import numpy as np

from monai_calib.compiled import BLOCK, exp_in_place, jit, log_in_place

from .neighborhood_cpu import add_across, add_along

__all__ = ["ENTROPY", "MARGIN_L1", "MARGIN_L2", "NOTHING", "PRIOR_L1", "PRIOR_L2", "SMOOTHING", "sweep_planes"]

NOTHING, MARGIN_L1, MARGIN_L2, PRIOR_L1, PRIOR_L2, SMOOTHING, ENTROPY = range(7)

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_TWO = np.float32(2.0)


@jit
def _block(
    logits, gradient, index, mass_ce, mass_penalty, prior, first, last, prior_first, share, full,
    kind, margin, scale_ce, scale_penalty, first_class, outer_only, rows, bits,
):  # fmt: skip
    """Voxels ``first`` to ``last`` of one image: the sums of cross-entropy and penalty, and their gradient if wanted.

    Rows are taken as ``array[k][first:last]``, which the compiler knows to be contiguous.
    """
    classes, n = logits.shape[0], last - first
    write = gradient.shape[1] > 0
    label = index[first:last]
    top, inverse, log_sum, sums = rows[0][:n], rows[1][:n], rows[2][:n], rows[3][:n]
    mass, weigh = rows[4][:n], rows[5][:n]
    bits = bits[:n]

    top[:] = logits[0][first:last]
    for k in range(1, classes):
        line = logits[k][first:last]
        for i in range(n):
            top[i] = line[i] if line[i] > top[i] else top[i]
    log_sum[:] = _ZERO
    for k in range(classes):
        line, e = logits[k][first:last], rows[6 + k][:n]
        for i in range(n):
            e[i] = line[i] - top[i]
        exp_in_place(e, bits)
        for i in range(n):
            log_sum[i] += e[i]
    for i in range(n):
        inverse[i] = _ONE / log_sum[i]
    log_in_place(log_sum, bits)
    total = 0.0
    if mass_ce.size:
        mass[:] = mass_ce[first:last]
        for i in range(n):
            log_sum[i] += top[i]
            total += mass[i] * (log_sum[i] - logits[label[i], first + i])
    else:
        mass[:] = _ONE
        for i in range(n):
            log_sum[i] += top[i]
            total += log_sum[i] - logits[label[i], first + i]

    if write:
        for k in range(classes):
            e, g = rows[6 + k][:n], gradient[k][first:last]
            for i in range(n):
                g[i] = e[i] * inverse[i] * mass[i] * scale_ce
        for i in range(n):
            gradient[label[i], first + i] -= mass[i] * scale_ce
    if kind == NOTHING:
        return total, 0.0

    if mass_penalty.size:
        weigh[:] = mass_penalty[first:last]
    else:
        weigh[:] = _ONE
    if outer_only:
        for i in range(n):
            if prior[label[i], prior_first + i] == full:
                weigh[i] = _ZERO
    sums[:] = _ZERO
    if kind == PRIOR_L1:
        for k in range(first_class, classes):
            line, near = logits[k][first:last], prior[k][prior_first : prior_first + n]
            if write:
                g = gradient[k][first:last]
                for i in range(n):
                    far = line[i] - share * near[i]
                    sums[i] += abs(far)
                    g[i] += scale_penalty * weigh[i] * (np.float32(far > 0) - np.float32(far < 0))
            else:
                for i in range(n):
                    sums[i] += abs(line[i] - share * near[i])
    elif kind == PRIOR_L2:
        for k in range(first_class, classes):
            line, near = logits[k][first:last], prior[k][prior_first : prior_first + n]
            for i in range(n):
                far = line[i] - share * near[i]
                sums[i] += far * far
            if write:
                g = gradient[k][first:last]
                for i in range(n):
                    g[i] += _TWO * scale_penalty * weigh[i] * (line[i] - share * near[i])
    elif kind in (MARGIN_L1, MARGIN_L2):
        # what pulls the losing logits up pushes the winner down
        push = inverse
        push[:] = _ZERO
        for k in range(first_class, classes):
            line = logits[k][first:last]
            if kind == MARGIN_L1:
                for i in range(n):
                    over = top[i] - line[i] - margin
                    sums[i] += _ZERO if over < 0 else over
                if write:
                    g = gradient[k][first:last]
                    for i in range(n):
                        force = np.float32(top[i] - line[i] > margin) * weigh[i] * scale_penalty
                        push[i] += force
                        g[i] -= force
            else:
                for i in range(n):
                    over = top[i] - line[i] - margin
                    over = _ZERO if over < 0 else over
                    sums[i] += over * over
                if write:
                    g = gradient[k][first:last]
                    for i in range(n):
                        over = top[i] - line[i] - margin
                        force = (_ZERO if over < 0 else _TWO * over) * weigh[i] * scale_penalty
                        push[i] += force
                        g[i] -= force
        if write:
            winner = bits  # the first of equal ones, as PyTorch's maximum has it
            winner[:] = 0
            for k in range(classes - 1, -1, -1):
                line = logits[k][first:last]
                for i in range(n):
                    winner[i] = np.int32(k) if line[i] == top[i] else winner[i]
            for i in range(n):
                gradient[winner[i], first + i] += push[i]
    elif kind == SMOOTHING:
        held = np.float32(classes - first_class)
        for k in range(first_class, classes):
            line = logits[k][first:last]
            for i in range(n):
                sums[i] -= line[i]
            if write:
                g = gradient[k][first:last]
                for i in range(n):
                    g[i] -= scale_penalty * weigh[i]
        for i in range(n):
            sums[i] += held * logits[label[i], first + i]
        if write:
            for i in range(n):
                gradient[label[i], first + i] += held * scale_penalty * weigh[i]
    elif kind == ENTROPY:
        for k in range(classes):
            line, e = logits[k][first:last], rows[6 + k][:n]
            for i in range(n):
                sums[i] += e[i] * inverse[i] * (line[i] - log_sum[i])
        if write:
            # d/dl_k of sum_j s_j log s_j is s_k (log s_k - sum_j s_j log s_j)
            for k in range(classes):
                line, e, g = logits[k][first:last], rows[6 + k][:n], gradient[k][first:last]
                for i in range(n):
                    slope = e[i] * inverse[i] * (line[i] - log_sum[i] - sums[i])
                    g[i] += slope * scale_penalty * weigh[i]

    penalty = 0.0
    for i in range(n):
        penalty += sums[i] * weigh[i]
    return total, penalty


@jit
def sweep_planes(
    start, stop, logits, gradient, index, mass_ce, mass_penalty, prior,
    kind, margin, scale_ce, scale_penalty, first_class, outer_only,
    shape, window, outside, counted, number,
):  # fmt: skip
    """Planes ``start`` to ``stop`` of the ``B * D`` planes of a batch: the unscaled sums of both terms.

    ``logits``, ``gradient`` and ``prior`` are ``(B, K, N)``, the others ``(B, N)``; an empty one is absent.
    ``counted`` fills the prior with neighbour counts of the type of ``number`` on the way.
    """
    classes = logits.shape[1]
    depth, height, width = shape
    size = height * width
    full = window[0] * window[1] * window[2]
    share = _ONE / np.float32(full) if counted else _ONE
    # so many planes that the rows of a 2D image fill a block
    group = max(1, BLOCK // size)
    counts = np.zeros((classes, group * size if counted else 0), number.dtype)
    column = np.zeros((classes, size if counted else 0), number.dtype)
    row = np.zeros(width, number.dtype)
    padded = np.zeros(width + window[2] - 1, number.dtype)
    rows = np.empty((classes + 6, BLOCK), np.float32)
    bits = np.empty(BLOCK, np.int32)
    nothing = np.empty(0, np.float32)
    no_rows = np.empty((classes, 0), np.float32)
    margin, scale_ce, scale_penalty = np.float32(margin), np.float32(scale_ce), np.float32(scale_penalty)
    total, penalty = 0.0, 0.0
    z = start
    while z < stop:
        b, d = z // depth, z % depth
        planes = min(group, stop - z, depth - d)
        for p in range(planes if counted else 0):
            fresh = d + p == 0 or z + p == start
            add_along(column, index[b], d + p, depth, size, window[0], outside, fresh)
            add_across(counts, p * size, column, row, padded, height, width, window, outside)
        slopes = gradient[b] if gradient.size else no_rows
        masses = mass_ce[b] if mass_ce.size else nothing
        weights = mass_penalty[b] if mass_penalty.size else nothing
        for first in range(d * size, (d + planes) * size, BLOCK):
            last = min(first + BLOCK, (d + planes) * size)
            if counted:
                part = _block(
                    logits[b], slopes, index[b], masses, weights, counts, first, last, first - d * size, share, full,
                    kind, margin, scale_ce, scale_penalty, first_class, outer_only, rows, bits,
                )  # fmt: skip
            else:
                held = prior[b] if prior.size else no_rows
                part = _block(
                    logits[b], slopes, index[b], masses, weights, held, first, last, first, share, full,
                    kind, margin, scale_ce, scale_penalty, first_class, outer_only, rows, bits,
                )  # fmt: skip
            total += part[0]
            penalty += part[1]
        z += planes
    return total, penalty
