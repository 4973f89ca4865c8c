"""The fine bins of a calibration histogram, and how coarser ones fall out of them by adding."""

from __future__ import annotations

from functools import lru_cache

import torch

__all__ = ["THRESHOLD", "coarse_edges", "coarse_of_fine", "fine_edges", "fine_index", "tail_bins"]

THRESHOLD = 1e-3
"""Probabilities up to this one are left out of thresholded class-wise errors (TACE); an edge of the fine bins."""

# Bins a unit in the first and in the last of the ``num_bins`` bins, where nearly all voxels of a volume lie. The
# second is one float32 less than 24000: rounded so, 1e-3 itself is in the 24th bin, and the next float32 is not.
TAIL = 24_000.0
TAIL_LOW = 23_999.998046875

# The papers' 15 bins have the edges of torch.linspace(0, 1, 16), which lie up to 2 floats away from the nearest float32
# to j / 15: above it in the lower half, below it for 8/15 ... 10/15. Factors one float32 beside 1 put p * num_bins on
# the right side of the whole number on exactly those edges. They change within a bin, where nothing else does.
BELOW_ONE = 1 - 2.0**-24
ABOVE_ONE = 1 + 2.0**-24
LOWER_HALF = 0.5 + 0.4 / 960
UPPER_THIRD = 0.7 + 0.4 / 960


def tail_bins(num_bins: int) -> int:
    """Number of finer bins that the first, and likewise the last, of ``num_bins`` bins is divided into.

    Raises: ``ValueError`` unless ``num_bins`` is 60, 120, 240, 480 or 960.

    Example:
        >>> tail_bins(960)
        25
    """
    if num_bins not in (60, 120, 240, 480, 960):
        raise ValueError(f"num_bins: expected 60, 120, 240, 480 or 960, got {num_bins}")
    return int(TAIL) // num_bins


def fine_index(p: torch.Tensor, num_bins: int) -> torch.Tensor:
    """Fine bin of probabilities, float32 in [0, 1], as int32.

    ``num_bins`` equal bins, of which the first and the last are divided once more to a width of 1/24000. A bin is
    (lower, upper]; the first takes 0 as well. Only multiplications, so that it is the same on every device, and in
    the compiled pass.

    Example:
        >>> fine_index(torch.tensor([0.0, 1e-3, 0.5, 1.0]), 960)
        tensor([   0,   23,  503, 1007], dtype=torch.int32)
    """
    tail = tail_bins(num_bins)
    factor = torch.where(
        p < LOWER_HALF, BELOW_ONE * num_bins, torch.where(p < UPPER_THIRD, ABOVE_ONE * num_bins, num_bins)
    )
    middle = (p * factor).ceil().int() + (tail - 1)
    low = (p * TAIL_LOW).ceil().int()
    high = (num_bins + 2 * tail - 2) - ((1 - p) * TAIL).floor().int()
    return torch.maximum(torch.minimum(low, middle), high).clamp_min(1) - 1


@lru_cache(maxsize=8)
def fine_edges(num_bins: int) -> torch.Tensor:
    """Upper edges of the fine bins after a 0: for each bin the largest float32 that :func:`fine_index` puts into it.

    Every 1/15 it is the float32 of ``torch.linspace(0, 1, 16)``: a voxel lying on an edge of the papers' bins, with
    a probability of 1/3 or 2/3, falls where it fell there. Elsewhere it is the nearest float32 or one beside it.

    Example:
        >>> edges = fine_edges(960)
        >>> len(edges) - 1, edges[:3].tolist()
        (1008, [0.0, 4.166...e-05, 8.333...e-05])
    """
    bins = num_bins + 2 * tail_bins(num_bins) - 2
    # The bit patterns of positive floats are ordered as they are: halve the interval that holds each edge.
    low = torch.zeros(bins, dtype=torch.int32)
    high = torch.ones(bins).view(torch.int32) + 1
    for _ in range(31):
        middle = low + (high - low) // 2
        inside = fine_index(middle.view(torch.float32), num_bins) <= torch.arange(bins)
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return torch.cat([torch.zeros(1), low.view(torch.float32)])


def _check_divisor(num_bins: int, coarse: int) -> None:
    if coarse < 1 or num_bins % coarse:
        divisors = [n for n in range(1, num_bins + 1) if num_bins % n == 0]
        raise ValueError(f"num_bins: expected a divisor of the histogram's {num_bins} bins {divisors}, got {coarse}")


@lru_cache(maxsize=64)
def coarse_of_fine(num_bins: int, coarse: int) -> torch.Tensor:
    """Index of the coarse bin each fine bin lies in, int64 ``(len(fine_edges) - 1,)``.

    Raises: ``ValueError`` if ``coarse`` does not divide ``num_bins``.

    Example:
        >>> torch.bincount(coarse_of_fine(960, 4)).tolist()
        [264, 240, 240, 264]
    """
    _check_divisor(num_bins, coarse)
    tail = tail_bins(num_bins)
    uniform = torch.cat([torch.zeros(tail), torch.arange(1, num_bins - 1), torch.full((tail,), num_bins - 1)])
    return uniform.long() // (num_bins // coarse)


@lru_cache(maxsize=32)
def coarse_edges(num_bins: int, coarse: int) -> torch.Tensor:
    """Edges of the coarse bins, float64 ``(coarse + 1,)``, as the fine bins have them.

    Raises: ``ValueError`` if ``coarse`` does not divide ``num_bins``.

    Example:
        >>> coarse_edges(960, 4).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    edges = fine_edges(num_bins)
    return torch.cat([edges[first_of_coarse(num_bins, coarse)], edges[-1:]]).double()


@lru_cache(maxsize=32)
def first_of_coarse(num_bins: int, coarse: int) -> torch.Tensor:
    """The first fine bin of each coarse one.

    Raises: ``ValueError`` if ``coarse`` does not divide ``num_bins``.

    Example:
        >>> first_of_coarse(960, 4).tolist()
        [0, 264, 504, 744]
    """
    return torch.searchsorted(coarse_of_fine(num_bins, coarse), torch.arange(coarse))
