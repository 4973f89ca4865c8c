"""Calibration errors without bins, against their definitions on the voxels themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_calib.metrics import CalibrationHistogram, ece, mmce, smooth_ece


def voxels(seed: int, shift: float, n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the second class, and whether it is there, too seldom by ``shift``."""
    rng = np.random.default_rng(seed)
    p = rng.beta(3, 1, n).astype(np.float32).astype(float)
    return p, (rng.random(n) < np.clip(p - shift, 0, 1)).astype(float)


def histogram(p: np.ndarray, hit: np.ndarray) -> CalibrationHistogram:
    hist = CalibrationHistogram(2)
    second = torch.from_numpy(p).float()
    hist.update(torch.stack([1 - second, second])[None], torch.from_numpy(hit).long()[None], from_logits=False)
    return hist


def smoothed_error(p: np.ndarray, hit: np.ndarray, s: float, points: int = 2000) -> float:
    """The definition: residuals smoothed by a Gaussian and its images in mirrors at 0 and 1, by midpoints."""
    t = (np.arange(points) + 0.5) / points
    kernel = np.zeros((points, len(p)))
    for image in range(-4, 5):
        for place in (2 * image + p, 2 * image - p):
            kernel += np.exp(-(((t[:, None] - place) / s) ** 2) / 2) / (s * math.sqrt(2 * math.pi))
    return float(np.abs(kernel @ (hit - p) / len(p)).mean())


@pytest.mark.parametrize(("seed", "shift"), [(0, 0.2), (1, 0.05), (2, 0.0)])
def test_smooth_ece_is_where_the_smoothed_error_equals_the_smoothing(seed: int, shift: float) -> None:
    p, hit = voxels(seed, shift)
    found = smooth_ece(histogram(p, hit), 1)
    assert smoothed_error(p, hit, found.value) == pytest.approx(found.value, rel=2e-3)
    # the error falls as the smoothing grows: beyond the bounds the definition is on the other side
    assert smoothed_error(p, hit, found.high) <= found.high
    assert smoothed_error(p, hit, found.low) >= found.low
    assert found.low <= found.value <= found.high


def test_smooth_ece_of_one_confidence_is_its_gap_smeared_out() -> None:
    # Of all voxels at p, half the mass of the kernel on either side, all of one sign: smECE_s = |acc - p| for every s.
    for p, accuracy in ((0.75, 0.5), (0.9, 1.0), (0.99, 0.0)):
        hit = np.repeat([1.0, 0.0], [round(100 * accuracy), 100 - round(100 * accuracy)])
        found = smooth_ece(histogram(np.full(100, p), hit), 1)
        assert found.value == pytest.approx(abs(p - accuracy), abs=1e-4)


def test_smooth_ece_stays_where_the_ece_jumps() -> None:
    """Half of the voxels are right, at 0.5, half are wrong, just beside: one calibrated bin, or two that are not."""
    hit = np.repeat([1.0, 0.0], 50)
    same, beside = (histogram(np.repeat([0.5, 0.5 + step], 50), hit) for step in (0.0, 1e-5))
    assert ece(same, 2, 1) == pytest.approx(0, abs=1e-6)
    assert ece(beside, 2, 1) == pytest.approx(0.5, abs=1e-4)
    for metric in (smooth_ece(same, 1), smooth_ece(beside, 1), mmce(same, class_index=1), mmce(beside, class_index=1)):
        assert metric.value < 2e-3  # a fine bin's width, 1/960, is seen
        assert metric.low == 0


def test_a_small_error_is_resolved_by_more_cosines() -> None:
    p, n = 0.9999, 10**6
    hist = CalibrationHistogram(2)
    second = torch.full((n,), p)
    label = torch.ones(n, dtype=torch.int64)
    label[:1100] = 0  # accuracy 0.9989: a gap of 0.001
    hist.update(torch.stack([1 - second, second])[None], label[None], from_logits=False)
    assert smooth_ece(hist, 1).value == pytest.approx(0.001, rel=0.02)


def test_nothing_wrong_is_next_to_nothing_and_nothing_at_all_is_nan() -> None:
    hist = CalibrationHistogram(2)
    sure = torch.tensor([0.0, 1.0])[None, :, None].expand(1, 2, 10)
    hist.update(sure, torch.ones(1, 10), from_logits=False, strict=False)
    assert 0 <= smooth_ece(hist, 1).value < 2e-4
    assert smooth_ece(hist, 1).low == 0
    assert mmce(hist, class_index=1).value == 0
    for metric in (smooth_ece, mmce):
        assert all(math.isnan(value) for value in metric(CalibrationHistogram(2)))
    with pytest.raises(ValueError, match="width"):
        mmce(hist, width=0)


@pytest.mark.parametrize("width", [0.1, 0.4])
def test_mmce_is_the_norm_over_all_pairs_of_voxels(width: float) -> None:
    p, hit = voxels(3, 0.1)
    residual = hit - p
    exact = math.sqrt(np.mean(np.outer(residual, residual) * np.exp(-np.abs(p[:, None] - p) / width)))
    found = mmce(histogram(p, hit), width, 1)
    assert found.value == pytest.approx(exact, rel=1e-3)
    assert found.low <= exact <= found.high
