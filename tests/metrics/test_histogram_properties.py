"""What must not change the counts, and what a perfectly calibrated prediction must score."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_calib.metrics import CalibrationHistogram, classwise_ece, debiased_ece, ece, ks_error, nll

CLASSES = 3


@st.composite
def volumes(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Logits ``(1, 3, n)`` that float16 holds, their label, and a seed."""
    voxels = draw(st.integers(2, 300))
    seed = draw(st.integers(0, 2**31))
    spread = draw(st.sampled_from([0.1, 1.0, 8.0, 60.0]))
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(1, CLASSES, voxels, generator=generator) * spread).half().float()
    return logits, torch.randint(0, CLASSES, (1, voxels), generator=generator), seed


def filled(*updates: tuple[torch.Tensor, torch.Tensor]) -> CalibrationHistogram:
    hist = CalibrationHistogram(CLASSES)
    for logits, label in updates:
        hist.update(logits, label)
    return hist


def assert_same(a: CalibrationHistogram, b: CalibrationHistogram) -> None:
    for name in ("count", "hits", "confidence", "problems"):
        assert torch.equal(getattr(a.sums, name), getattr(b.sums, name)), name
    torch.testing.assert_close(a.sums.scores, b.sums.scores, rtol=1e-6, atol=1e-6)


@given(volumes())
@settings(max_examples=40, deadline=None)
def test_order_of_voxels(volume: tuple[torch.Tensor, torch.Tensor, int]) -> None:
    logits, label, seed = volume
    order = torch.randperm(label.shape[1], generator=torch.Generator().manual_seed(seed))
    assert_same(filled((logits, label)), filled((logits[..., order], label[:, order])))


@given(volumes(), st.data())
@settings(max_examples=15, deadline=None)
def test_splitting_batches_and_order_of_merging(
    volume: tuple[torch.Tensor, torch.Tensor, int], data: st.DataObject
) -> None:
    logits, label, _ = volume
    cuts = sorted(data.draw(st.lists(st.integers(0, label.shape[1]), min_size=2, max_size=4)))
    edges = [0, *cuts, label.shape[1]]
    parts = [(logits[..., a:b], label[:, a:b]) for a, b in itertools.pairwise(edges) if b > a]
    whole = filled((logits, label))
    assert_same(filled(*parts), whole)
    merged = CalibrationHistogram(CLASSES)
    for part in data.draw(st.permutations(parts)):
        merged.merge(filled(part))
    assert_same(merged, whole)


@given(volumes())
@settings(max_examples=40, deadline=None)
def test_dtype(volume: tuple[torch.Tensor, torch.Tensor, int]) -> None:
    logits, label, _ = volume
    for dtype in (torch.float16, torch.float64):
        assert_same(filled((logits.to(dtype), label.to(torch.int16))), filled((logits, label)))


@given(volumes())
@settings(max_examples=40, deadline=None)
def test_rows_count_every_voxel_once(volume: tuple[torch.Tensor, torch.Tensor, int]) -> None:
    logits, label, _ = volume
    hist = filled((logits, label))
    voxels = label.shape[1]
    assert hist.sums.count.sum(1).tolist() == [voxels] * (CLASSES + 1)
    assert hist.class_voxels().tolist() == label[0].bincount(minlength=CLASSES).tolist()
    assert float(hist.sums.confidence[:CLASSES].sum()) == pytest.approx(voxels, rel=1e-5)
    assert int(hist.sums.hits[CLASSES].sum()) == int((logits.argmax(1) == label).sum())


@pytest.mark.parametrize("seed", range(3))
def test_threads_do_not_change_counts(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, CLASSES, 70_000, generator=generator) * 5
    label = torch.randint(0, CLASSES, (1, 70_000), generator=generator)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = filled((logits, label))
        torch.set_num_threads(3)
        assert_same(filled((logits, label)), one)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_labels_drawn_from_the_prediction_score_within_sampling_error(spread: float) -> None:
    """``y ~ s`` is perfectly calibrated: gaps are noise of variance p (1 - p) / n_b."""
    rng = np.random.default_rng(0)
    voxels = 200_000
    logits = torch.from_numpy(rng.normal(size=(1, CLASSES, voxels)) * spread).float()
    p = logits.softmax(1)
    drawn = torch.from_numpy(rng.random((1, voxels))).float()
    label = (p.cumsum(1) < drawn[:, None]).sum(1).clamp(max=CLASSES - 1)
    hist = filled((logits, label))
    for class_index in (None, 0, 1, 2):
        bins = hist.bins(15, class_index)
        # sum_b n_b / N * sigma_b, with sigma_b at most 0.5 / sqrt(n_b): five of them are never reached
        noise = float((0.5 * bins.count.double().sqrt()).sum() / bins.count.sum())
        assert ece(hist, class_index=class_index) < 2 * noise
        assert debiased_ece(hist, class_index=class_index) <= ece(hist, class_index=class_index)
        assert ks_error(hist, class_index) < 5 * 0.5 / voxels**0.5
    assert classwise_ece(hist) < 2 * noise
    entropy = float(-(p.double() * p.double().clamp_min(1e-30).log()).sum(1).mean())
    assert nll(hist) == pytest.approx(entropy, abs=0.01)


def test_an_over_confident_prediction_scores_beyond_sampling_error() -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(1, CLASSES, 50_000))).float()
    drawn = torch.from_numpy(rng.random((1, 50_000))).float()
    label = (logits.softmax(1).cumsum(1) < drawn[:, None]).sum(1).clamp(max=CLASSES - 1)
    assert ece(filled((logits * 3, label))) > 0.1
