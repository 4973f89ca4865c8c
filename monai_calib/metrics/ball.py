"""Voxels within some millimetres of each voxel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch

__all__ = ["ROUNDING", "largest_within"]

ROUNDING = 1e-5
"""A voxel at exactly r mm is within r mm, whatever the rounding of spacing times steps."""


def largest_within(volumes: torch.Tensor, radius: float, spacing: Sequence[float]) -> torch.Tensor:
    """The largest value at most ``radius`` mm away from each voxel, itself included.

    A ball is a bundle of runs along the last axis: the largest value of runs of each length is taken once, and then
    that over the runs the ball is made of. Around the volumes lies a margin as wide as the ball, so a step to another
    voxel is one step through memory for all of them, and needs no care at the edges.

    Args:
        volumes: integers ``(N, *spatial)``; the fewer bytes each, the faster.
        radius: in mm, from centre to centre.
        spacing: voxel size in mm, one number a spatial axis.

    Returns: as ``volumes``.

    Example:
        >>> largest_within(torch.tensor([[0, 3, 0, 0, 1]]), 2.0, [2.0])
        tensor([[3, 3, 3, 1, 1]])
    """
    shape, limit = volumes.shape[1:], radius**2 * (1 + ROUNDING)
    reach = [min(int((limit**0.5) / step), size - 1) for step, size in zip(spacing, shape, strict=True)]
    margins = [margin for n in reversed(reach) for margin in (n, n)]
    padded = torch.nn.functional.pad(volumes, margins, value=torch.iinfo(volumes.dtype).min)
    strides = padded.stride()[1:]

    runs = [padded.view(-1)]
    for length in range(1, reach[-1] + 1):
        runs.append(runs[-1].clone())
        middle = runs[-1][length:-length]
        torch.maximum(middle, runs[0][2 * length :], out=middle)
        torch.maximum(middle, runs[0][: -2 * length], out=middle)

    largest = padded.clone()
    first = sum(n * stride for n, stride in zip(reach, strides, strict=True))  # the first voxel inside the margin
    size = padded.numel() - 2 * first
    inside = largest.view(-1)[first : first + size]
    for offsets in product(*(range(-n, n + 1) for n in reach[:-1])):
        rest = limit - sum((offset * step) ** 2 for offset, step in zip(offsets, spacing[:-1], strict=True))
        if rest >= 0:
            run = runs[min(int((rest**0.5) / spacing[-1]), reach[-1])]
            start = first + sum(offset * stride for offset, stride in zip(offsets, strides[:-1], strict=True))
            torch.maximum(inside, run[start : start + size], out=inside)
    without_margin = (slice(None), *(slice(n, n + length) for n, length in zip(reach, shape, strict=True)))
    return largest[without_margin]
