"""Compiled parts of the neighbourhood operator: counts by running sums, and the image-guided proportions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from monai_calib.compiled import BLOCK, exp_in_place, jit, on_threads

__all__ = ["PADDING_NUMBERS", "add_across", "add_along", "image_guided_proportions"]

REPLICATE, VALID, BACKGROUND, ZEROS = range(4)
PADDING_NUMBERS = {"replicate": REPLICATE, "valid": VALID, "background": BACKGROUND, "zeros": ZEROS}


@jit
def add_along(column, labels, d, depth, size, window, outside, fresh):
    """``column[k, i]``: labels k in the window along the first axis, from the sums one plane before, or afresh."""
    reach = window // 2
    if fresh:
        column[:] = 0
        for step in range(-reach, reach + 1):
            p = d + step
            if outside != REPLICATE and (p < 0 or p >= depth):
                if outside == BACKGROUND:
                    for i in range(size):
                        column[0, i] += 1
                continue
            p = min(max(p, 0), depth - 1)
            plane = labels[p * size : (p + 1) * size]
            for k in range(column.shape[0]):
                sums = column[k]
                for i in range(size):
                    sums[i] += plane[i] == k
        return
    if window == 1 and d > 0:
        plane = labels[d * size : (d + 1) * size]
        for k in range(column.shape[0]):
            sums = column[k]
            for i in range(size):
                sums[i] = plane[i] == k
        return
    entering, leaving = d + reach, d - reach - 1
    inside_in = outside == REPLICATE or entering < depth
    inside_out = outside == REPLICATE or leaving >= 0
    entering, leaving = min(entering, depth - 1), max(leaving, 0)
    new = labels[entering * size : (entering + 1) * size]
    old = labels[leaving * size : (leaving + 1) * size]
    for k in range(column.shape[0]):
        sums = column[k]
        background = outside == BACKGROUND and k == 0
        if inside_in and inside_out:
            for i in range(size):
                sums[i] += np.uint8(new[i] == k) - np.uint8(old[i] == k)
        else:
            for i in range(size):
                come = np.uint8(new[i] == k) if inside_in else np.uint8(background)
                go = np.uint8(old[i] == k) if inside_out else np.uint8(background)
                sums[i] += come - go


@jit
def add_across(counts, at, column, row, padded, height, width, window, outside):
    """``counts[k, i]``: the columns summed over the window along the other two axes."""
    reach_y, reach_x = window[1] // 2, window[2] // 2
    for k in range(counts.shape[0]):
        background = outside == BACKGROUND and k == 0
        beyond = padded.dtype.type(window[0] if background else 0)
        sums = column[k]
        row[:] = 0
        # the first row's window, less the line that enters with it
        for p in range(-reach_y, reach_y):
            if outside != REPLICATE and (p < 0 or p >= height):
                for x in range(width):
                    row[x] += beyond
            else:
                entering = sums[min(max(p, 0), height - 1) * width :]
                for x in range(width):
                    row[x] += entering[x]
        for y in range(height):
            p = y + reach_y
            if window[1] == 1:
                row[:] = sums[y * width : (y + 1) * width]
            elif outside != REPLICATE and p >= height:
                for x in range(width):
                    row[x] += beyond
            else:
                entering = sums[min(p, height - 1) * width :]
                for x in range(width):
                    row[x] += entering[x]
            p = y - reach_y - 1
            if window[1] > 1 and y > 0:
                if outside != REPLICATE and p < 0:
                    for x in range(width):
                        row[x] -= beyond
                else:
                    leaving = sums[max(p, 0) * width :]
                    for x in range(width):
                        row[x] -= leaving[x]
            padded[reach_x : reach_x + width] = row
            left, right = row[0], row[width - 1]
            if outside != REPLICATE:
                left = right = padded.dtype.type(beyond * window[1])
            for x in range(reach_x):
                padded[x] = left
                padded[reach_x + width + x] = right
            line = counts[k][at + y * width : at + (y + 1) * width]
            for x in range(width):
                line[x] = padded[x]
            for step in range(1, window[2]):
                for x in range(width):
                    line[x] += padded[x + step]


@jit
def _fill(values, row, reach, padding, outside):
    """``values``: a row with ``reach`` more on either side, the border repeated or ``outside``."""
    width = row.size
    values[reach : reach + width] = row
    for x in range(reach):
        values[x] = row[0] if padding == REPLICATE else outside
        values[reach + width + x] = row[width - 1] if padding == REPLICATE else outside


@jit
def _rows(start, stop, image, label, out, shape, window, padding, squared):
    """Rows ``start`` to ``stop`` of all the rows of a batch; ``label`` holds K where there is no class."""
    _, channels, _ = image.shape
    classes = out.shape[1]
    depth, height, width = shape
    reach_z, reach_y, reach_x = window[0] // 2, window[1] // 2, window[2] // 2
    mass = np.empty((classes + 1, width), np.float32)
    weight = np.empty(width, np.float32)
    bits = np.empty(width, np.int32)
    labels = np.empty(width + 2 * reach_x, label.dtype)
    values = np.empty((channels, width + 2 * reach_x), np.float32)
    nothing = np.uint8(0 if padding == BACKGROUND else classes)
    for r in range(start, stop):
        b, z, y = r // (depth * height), r // height % depth, r % height
        here = (z * height + y) * width
        mass[:] = 0
        for dz in range(-reach_z, reach_z + 1):
            for dy in range(-reach_y, reach_y + 1):
                nz, ny = z + dz, y + dy
                outside = nz < 0 or nz >= depth or ny < 0 or ny >= height
                if outside and padding == VALID:
                    continue
                if outside and padding != REPLICATE:
                    labels[:] = nothing
                    values[:] = 0
                else:
                    at = (min(max(nz, 0), depth - 1) * height + min(max(ny, 0), height - 1)) * width
                    _fill(labels, label[b][at : at + width], reach_x, padding, nothing)
                    for c in range(channels):
                        _fill(values[c], image[b][c][at : at + width], reach_x, padding, np.float32(0))
                for dx in range(window[2]):
                    weight[:] = 0
                    for c in range(channels):
                        near, own = values[c][dx : dx + width], image[b][c][here : here + width]
                        if squared:
                            for x in range(width):
                                weight[x] -= (near[x] - own[x]) * (near[x] - own[x])
                        else:
                            for x in range(width):
                                weight[x] -= abs(near[x] - own[x])
                    if channels > 1:
                        for x in range(width):
                            weight[x] /= np.float32(channels)
                    exp_in_place(weight, bits)
                    for x in range(width):
                        mass[labels[x + dx], x] += weight[x]
        norm = weight
        if padding == ZEROS:
            norm[:] = mass[classes]
        else:
            norm[:] = 0
        for k in range(classes):
            for x in range(width):
                norm[x] += mass[k, x]
        for k in range(classes):
            line = out[b][k][here : here + width]
            for x in range(width):
                line[x] = mass[k, x] / max(norm[x], np.float32(1e-12))


def image_guided_proportions(
    label: Tensor, image: Tensor, num_classes: int, sizes: tuple[int, ...], padding: str, squared: bool
) -> Tensor:
    """The result of :func:`.neighborhood.label_proportions` for an image-guided prior, on the CPU in float32.

    Args:
        label: class numbers ``(B, *spatial)``; ``num_classes`` where there is no class.
        image: ``(B, C, *spatial)``.
        num_classes: K, below 255.
        sizes: the window, one number per axis.
        padding: as in :func:`.neighborhood.label_proportions`.
        squared: whether intensities differ by their squared distance.
    """
    batch, spatial = label.shape[0], label.shape[1:]
    shape, window = ((1,) * (3 - len(s)) + tuple(s) for s in (spatial, sizes))
    out = torch.empty((batch, num_classes, *spatial), dtype=torch.float32)
    arrays = (
        image.float().reshape(batch, image.shape[1], -1).contiguous().numpy(),
        label.to(torch.uint8).reshape(batch, -1).contiguous().numpy(),
        out.view(batch, num_classes, -1).numpy(),
    )

    def rows(start: int, stop: int) -> None:
        _rows(start, stop, *arrays, shape, window, PADDING_NUMBERS[padding], squared)

    on_threads(rows, batch * shape[0] * shape[1], smallest=max(1, BLOCK // shape[2]), step=1)
    return out
