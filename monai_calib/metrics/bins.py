"""The fine bins of a calibration histogram, and how coarser ones fall out of them by adding."""

from __future__ import annotations

from functools import lru_cache

import torch

__all__ = ["TAIL_RESOLUTION", "THRESHOLD", "coarse_edges", "coarse_of_fine", "fine_edges", "tail_bins"]

TAIL_RESOLUTION = 24_000
"""Bins a unit in the first and the last of the ``num_bins`` bins, where nearly all voxels of a volume lie."""

THRESHOLD = 1e-3
"""Probabilities up to this one are left out of thresholded class-wise errors (TACE); 24 / 24000, so a fine edge."""


def tail_bins(num_bins: int) -> int:
    """Number of finer bins that the first, and likewise the last, of ``num_bins`` bins is divided into.

    Raises: ``ValueError`` unless ``num_bins`` is a multiple of 60 that divides 24000 and is at most 960.

    Example:
        >>> tail_bins(960)
        25
    """
    if num_bins < 60 or num_bins % 60 or TAIL_RESOLUTION % num_bins or num_bins > 960:
        raise ValueError(f"num_bins: expected one of 60, 120, 240, 300, 480, 600, 960, got {num_bins}")
    return TAIL_RESOLUTION // num_bins


@lru_cache(maxsize=8)
def fine_edges(num_bins: int) -> torch.Tensor:
    """Edges of the fine bins, float32, on the CPU, from 0 to 1.

    ``num_bins`` equal bins, of which the first and the last are divided once more to a width of 1/24000: one of
    these edges is 1e-3. A bin is (lower, upper]; the first takes 0 as well. The 14 inner edges of the papers' 15 bins
    are those of ``torch.linspace(0, 1, 16)``, which are up to 2 units in the last place away from the nearest float32
    to ``j / 15``: a voxel lying on such an edge (a probability of 2/3, say) must fall where it fell in the papers.
    All other edges are the nearest float32.

    Example:
        >>> edges = fine_edges(960)
        >>> len(edges) - 1, edges[:3].tolist()
        (1008, [0.0, 4.166...e-05, 8.333...e-05])
    """
    tail = tail_bins(num_bins)
    fine = torch.arange(tail + 1, dtype=torch.float64) / TAIL_RESOLUTION
    inner = torch.arange(num_bins + 1, dtype=torch.float64) / num_bins
    inner[:: num_bins // 15] = torch.linspace(0, 1, 16, dtype=torch.float32).double()
    return torch.cat([fine[:-1], inner[1:-1], 1 - fine.flip(0)[1:]]).float()


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


def coarse_edges(num_bins: int, coarse: int) -> torch.Tensor:
    """Edges of the coarse bins, float64 ``(coarse + 1,)``, as the fine bins have them.

    Raises: ``ValueError`` if ``coarse`` does not divide ``num_bins``.

    Example:
        >>> coarse_edges(960, 4).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    index = coarse_of_fine(num_bins, coarse)
    first = torch.searchsorted(index, torch.arange(coarse))
    edges = fine_edges(num_bins)
    return torch.cat([edges[first], edges[-1:]]).double()
