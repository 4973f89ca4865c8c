"""Fine bins: the edges are where they are said to be, to the last bit."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from monai_calib.metrics.bins import THRESHOLD, coarse_edges, coarse_of_fine, fine_edges, fine_index, tail_bins

SIZES = (60, 120, 240, 480, 960)


def floats_around(values: torch.Tensor, steps: int = 12) -> torch.Tensor:
    bits = values.float().view(torch.int32)[:, None] + torch.arange(-steps, steps + 1, dtype=torch.int32)
    return bits.reshape(-1).view(torch.float32)


@pytest.mark.parametrize("num_bins", SIZES)
def test_fifteen_bins_have_the_edges_of_the_papers(num_bins: int) -> None:
    edges = torch.linspace(0, 1, 16)
    assert torch.equal(coarse_edges(num_bins, 15).float(), edges)
    p = torch.cat([floats_around(edges[1:-1]), edges, torch.tensor([1 / 3, 2 / 3, 0.2, 0.4, 0.6, 0.8, 8 / 15])])
    index = coarse_of_fine(num_bins, 15)[fine_index(p, num_bins).long()]
    for bin_, (lower, upper) in enumerate(pairwise(edges)):
        inside = (p > lower) & (p <= upper) | (p == 0) & (bin_ == 0)  # as the papers write it; 0 is in no bin there
        assert torch.equal(index == bin_, inside)


@pytest.mark.parametrize("num_bins", SIZES)
def test_index_and_edges_agree_on_every_float_around_an_edge(num_bins: int) -> None:
    edges = fine_edges(num_bins)
    p = torch.cat([floats_around(edges[1:-1]), edges, torch.rand(10_000, generator=torch.Generator().manual_seed(0))])
    assert torch.equal(fine_index(p, num_bins).long(), torch.bucketize(p, edges[1:-1]))


@pytest.mark.parametrize("num_bins", SIZES)
def test_edges_lie_where_arithmetic_puts_them(num_bins: int) -> None:
    edges = fine_edges(num_bins).double()
    tail = torch.arange(24_000 // num_bins + 1, dtype=torch.float64) / 24_000
    exact = torch.cat([tail, torch.arange(2, num_bins - 1) / float(num_bins), 1 - tail.flip(0)])
    assert edges.shape == exact.shape
    assert float((edges - exact).abs().max()) < 1.3e-7  # two floats just below 1


@pytest.mark.parametrize("coarse", [10, 12, 15, 20, 30, 60])
def test_coarse_bins_are_equal_and_tell_values_off_the_edges_as_float64_does(coarse: int) -> None:
    p = torch.rand(20_000, generator=torch.Generator().manual_seed(1))
    p = p[((p.double() * coarse) - (p.double() * coarse).round()).abs() > 1e-5]
    expected = (p.double() * coarse).ceil().long() - 1
    assert torch.equal(coarse_of_fine(960, coarse)[fine_index(p, 960).long()], expected)


def test_the_threshold_is_an_edge() -> None:
    assert (fine_edges(960) == torch.tensor(THRESHOLD)).sum() == 1


def test_ends_belong_to_the_first_and_the_last_bin() -> None:
    assert fine_index(torch.tensor([0.0, 1.0]), 960).tolist() == [0, len(fine_edges(960)) - 2]


@pytest.mark.parametrize("num_bins", [0, 15, 59, 64, 300, 961, 1920])
def test_other_numbers_of_fine_bins_are_refused(num_bins: int) -> None:
    with pytest.raises(ValueError, match=f"got {num_bins}"):
        tail_bins(num_bins)


@pytest.mark.parametrize("coarse", [0, -5, 7, 25, 961])
def test_numbers_of_bins_that_do_not_divide_are_refused(coarse: int) -> None:
    with pytest.raises(ValueError, match=f"divisor.*got {coarse}"):
        coarse_of_fine(960, coarse)
