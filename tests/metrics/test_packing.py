"""Histograms as JSON: nothing is lost, whatever they hold, and what was written before is still read."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_calib.metrics import CalibrationHistogram
from monai_calib.metrics.packing import pack_integers, unpack_integers
from monai_calib.metrics.serial import array_to_json


def some_histogram(voxels: int = 3000) -> CalibrationHistogram:
    generator = torch.Generator().manual_seed(1)
    hist = CalibrationHistogram(3, strict=False)
    logits = 3 * torch.randn(1, 3, voxels, generator=generator)
    hist.update(logits, torch.randint(0, 3, (1, voxels), generator=generator))
    return hist


def again(hist: CalibrationHistogram) -> CalibrationHistogram:
    return CalibrationHistogram.from_json(json.loads(json.dumps(hist.to_json(), allow_nan=False)))


def assert_same(one: CalibrationHistogram, other: CalibrationHistogram) -> None:
    assert one.updates == other.updates
    for name, value in one.sums.tensors().items():
        assert torch.equal(value, other.sums.tensors()[name]), name


@settings(deadline=None)
@given(values=st.lists(st.one_of(st.integers(0, 300), st.integers(-(2**63), 2**63 - 1))))
def test_integers_of_any_size_come_back(values):
    packed = pack_integers(np.array(values, dtype=np.int64))
    assert unpack_integers(packed, len(values)).tolist() == values


@pytest.mark.parametrize(("data", "size"), [([1, 172, 2], 1), ([1, 172, 2], 3), ([1, 172], 1), ([172], 0)])
def test_data_of_another_length_are_refused(data, size):
    with pytest.raises(ValueError, match=f"expected {size} packed numbers, got"):
        unpack_integers(bytes(data), size)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    voxels=st.integers(0, 500),
    num_bins=st.sampled_from([60, 960]),
    activation=st.sampled_from(["softmax", "sigmoid"]),
)
def test_a_histogram_comes_back_to_the_bit(seed, voxels, num_bins, activation):
    generator = torch.Generator().manual_seed(seed)
    hist = CalibrationHistogram(3, num_bins, activation, ignore_index=7, strict=False)
    logits = 9 * torch.randn(1, 3, voxels, generator=generator)
    hist.update(
        logits,
        (torch.rand(1, 3, voxels, generator=generator) > 0.5)
        if activation == "sigmoid"
        else torch.randint(0, 3, (1, voxels), generator=generator),
    )
    assert_same(hist, again(hist))


@pytest.mark.parametrize("factor", [3 * 10**5, 10**7])
def test_sums_too_large_for_exact_arithmetic_come_back_to_the_bit(factor):
    """Above 2^23 voxels a bin confidences are rounded, above 2^33 they are no int64 in units of 2^-30."""
    hist = some_histogram()
    hist.sums.count *= factor
    hist.sums.hits *= factor
    hist.sums.confidence *= factor / 3 * 3.000000001
    assert_same(hist, again(hist))


def test_a_single_huge_bin_comes_back_to_the_bit():
    hist = some_histogram()
    hist.sums.count[0, 0] += 2**40
    hist.sums.confidence[0, 0] += 2.0**25
    assert_same(hist, again(hist))


def test_infinite_scores_come_back():
    hist = some_histogram()
    hist.sums.scores[0] = torch.inf
    assert_same(hist, again(hist))


def test_the_former_format_is_read():
    hist = some_histogram()
    arrays = {name: array_to_json(value.numpy()) for name, value in hist.sums.tensors().items()}
    settings = {"num_classes": 3, "num_bins": 960, "activation": "softmax", "ignore_index": None, "strict": False}
    former = {"format": "monai_calib/histogram/1", **settings, "updates": 1, **arrays}
    assert_same(hist, CalibrationHistogram.from_json(former))


def test_a_case_of_few_voxels_takes_few_bytes():
    """24 bytes for each of 4032 bins before compression; three quarters of them hold a voxel here."""
    assert len(json.dumps(some_histogram().to_json())) < 20_000
    assert len(json.dumps(CalibrationHistogram(3).to_json())) < 500
