"""The image-guided proportions, compiled: each neighbour weighted by how much its intensity resembles the centre's."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from monai_calib.compiled import BLOCK, exp_in_place, jit, on_threads

__all__ = ["image_guided_proportions"]

REPLICATE, VALID, BACKGROUND, ZEROS = range(4)
_PADDINGS = {"replicate": REPLICATE, "valid": VALID, "background": BACKGROUND, "zeros": ZEROS}


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
    """What :func:`.neighborhood.label_proportions` gives for an image-guided prior, on the CPU in float32.

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
        _rows(start, stop, *arrays, shape, window, _PADDINGS[padding], squared)

    on_threads(rows, batch * shape[0] * shape[1], smallest=max(1, BLOCK // shape[2]), step=1)
    return out
