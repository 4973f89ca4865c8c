"""Errors and scores against closed forms and plain NumPy on every voxel."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from monai_calib.metrics import (
    CalibrationHistogram,
    ace,
    adaptive_ece,
    brier,
    brier_decomposition,
    classwise_ece,
    classwise_ece_per_class,
    debiased_ece,
    ece,
    ks_error,
    mce,
    over_confidence,
    reliability_curve,
    rmsce,
    sharpness,
    under_confidence,
    wilson_interval,
)

VOXELS = 20_000
GENERATOR = torch.Generator().manual_seed(3)
LOGITS = torch.randn(1, 4, VOXELS, generator=GENERATOR) * torch.logspace(-0.5, 1.2, VOXELS)
LABEL = torch.where(torch.rand(1, VOXELS, generator=GENERATOR) < 0.4, LOGITS.argmax(1), 0)  # class 0 too often
HIST = CalibrationHistogram(4)
HIST.update(LOGITS.softmax(1), LABEL, from_logits=False)
P = LOGITS.softmax(1)[0].numpy()
Y = LABEL[0].numpy()


def row(class_index: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and hit of each voxel, float64."""
    if class_index is None:
        return P.max(0).astype(float), (P.argmax(0) == Y).astype(float)
    return P[class_index].astype(float), (class_index == Y).astype(float)


def plain_bins(class_index: int | None, num_bins: int, above: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Share of the voxels, and gap, of each occupied bin."""
    confidence, hit = row(class_index)
    kept = confidence > np.float32(above)
    confidence, hit = confidence[kept], hit[kept]
    index = np.ceil(confidence * num_bins).astype(int)
    groups = [index == i for i in np.unique(index)]
    share = np.array([g.mean() for g in groups])
    return share, np.array([confidence[g].mean() - hit[g].mean() for g in groups])


BINNED: dict[Callable[..., float], Callable[[np.ndarray, np.ndarray], float]] = {
    ece: lambda w, gap: float((w * abs(gap)).sum()),
    over_confidence: lambda w, gap: float((w * gap.clip(0)).sum()),
    under_confidence: lambda w, gap: float((w * (-gap).clip(0)).sum()),
    ace: lambda w, gap: float(abs(gap).mean()),
    mce: lambda w, gap: float(abs(gap).max()),
    rmsce: lambda w, gap: math.sqrt((w * gap**2).sum()),
}


@pytest.mark.parametrize("measure", BINNED, ids=lambda f: f.__name__)
@pytest.mark.parametrize("num_bins", [10, 15, 30])
@pytest.mark.parametrize("class_index", [None, 0, 3])
def test_binned_errors(measure: Callable[..., float], num_bins: int, class_index: int | None) -> None:
    expected = BINNED[measure](*plain_bins(class_index, num_bins))
    assert measure(HIST, num_bins, class_index) == pytest.approx(expected, abs=1e-6)


def test_over_and_under_confidence_are_the_two_sides() -> None:
    assert over_confidence(HIST) + under_confidence(HIST) == pytest.approx(ece(HIST))
    confidence, hit = row(None)
    for num_bins in (1, 15, 960):
        difference = over_confidence(HIST, num_bins) - under_confidence(HIST, num_bins)
        assert difference == pytest.approx(confidence.mean() - hit.mean(), abs=1e-8)


@pytest.mark.parametrize("threshold", [0.0, 1e-3])
def test_classwise_ece(threshold: float) -> None:
    expected = [BINNED[ece](*plain_bins(k, 15, threshold)) for k in range(4)]
    assert classwise_ece_per_class(HIST, threshold=threshold).tolist() == pytest.approx(expected, abs=1e-6)
    assert classwise_ece(HIST, threshold=threshold) == pytest.approx(np.mean(expected), abs=1e-6)
    without = classwise_ece(HIST, threshold=threshold, include_background=False)
    assert without == pytest.approx(np.mean(expected[1:]), abs=1e-6)


def test_the_threshold_leaves_out_what_equals_it() -> None:
    p = torch.tensor([1e-3, np.nextafter(np.float32(1e-3), np.float32(1))], dtype=torch.float32)
    hist = CalibrationHistogram(2)
    hist.update(torch.stack([p, 1 - p])[None], torch.tensor([[0, 0]]), from_logits=False)
    assert classwise_ece_per_class(hist, threshold=1e-3)[0] == pytest.approx(1 - 1e-3)
    assert hist.bins(15, 0).count[0] == 2
    with pytest.raises(ValueError, match="threshold"):
        classwise_ece(hist, threshold=0.0017)
    with pytest.raises(ValueError, match="threshold"):
        classwise_ece(hist, threshold=0.5)


def test_absent_classes() -> None:
    hist = CalibrationHistogram(4)
    label = torch.where(LABEL == 2, 2, 0)  # 1 and 3 are absent
    hist.update(LOGITS, label)
    each = classwise_ece_per_class(hist)
    for absent, classes in (("skip", [0, 2]), ("count", [0, 1, 2, 3]), ("paper", [0, 1, 2])):
        assert classwise_ece(hist, absent=absent) == pytest.approx(float(each[classes].mean()))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="absent"):
        classwise_ece(hist, absent="keep")  # type: ignore[arg-type]


@pytest.mark.parametrize("num_bins", [7, 15])
@pytest.mark.parametrize("class_index", [None, 1])
def test_adaptive_ece_is_near_that_of_sorted_confidences(num_bins: int, class_index: int | None) -> None:
    confidence, hit = row(class_index)
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(confidence[order] - hit[order], num_bins)
    expected = sum(abs(part.sum()) for part in parts) / VOXELS
    assert adaptive_ece(HIST, num_bins, class_index) == pytest.approx(expected, abs=5e-3)


def test_ks_error_is_near_that_of_sorted_confidences() -> None:
    confidence, hit = row(None)
    order = np.argsort(confidence, kind="stable")
    expected = abs(np.cumsum(confidence[order] - hit[order])).max() / VOXELS
    assert ks_error(HIST) == pytest.approx(expected, abs=2e-3)


def test_debiased_ece_is_that_of_simulated_noise() -> None:
    rng = np.random.default_rng(0)
    hist = CalibrationHistogram(2)
    p = torch.from_numpy(rng.uniform(0.5, 1, 2000)).float()
    label = torch.from_numpy((rng.random(2000) > p.numpy()).astype(np.int64))
    hist.update(torch.stack([p, 1 - p])[None], label[None], from_logits=False)
    bins = hist.bins(15)
    filled = (bins.count > 0).numpy()
    n, hits = bins.count.numpy()[filled], bins.hits.numpy()[filled]
    confidence, accuracy = bins.confidence.numpy()[filled] / n, hits / n
    noise = rng.normal(size=(200_000, len(n))) * np.sqrt(accuracy * (1 - accuracy) / n)
    noisy = (n / n.sum() * abs(confidence - accuracy - noise)).sum(1).mean()
    assert debiased_ece(hist) == pytest.approx(max(0, 2 * ece(hist) - noisy), abs=1e-4)
    assert debiased_ece(hist) < 0.5 * ece(hist)  # it was calibrated: most of its ECE is noise


def test_debiased_ece_of_certain_bins_is_the_ece() -> None:
    hist = CalibrationHistogram(2)
    hist.update(torch.tensor([[[0.7, 0.9], [0.3, 0.1]]]), torch.zeros(1, 2), from_logits=False)
    assert debiased_ece(hist) == pytest.approx(ece(hist))


@pytest.mark.parametrize("num_bins", [None, 15, 10])
def test_brier_decomposition(num_bins: int | None) -> None:
    reliability, resolution, uncertainty, within_bin = brier_decomposition(HIST, num_bins)
    assert reliability - resolution + uncertainty + within_bin == pytest.approx(brier(HIST))
    assert uncertainty == pytest.approx(sum((k == Y).mean() * (k != Y).mean() for k in range(4)))
    assert reliability >= 0
    assert resolution >= 0
    assert abs(within_bin) < (2e-3 if num_bins is None else 0.02)
    if num_bins is not None:
        expected = sum(float((w * gap**2).sum()) for w, gap in (plain_bins(k, num_bins) for k in range(4)))
        assert reliability == pytest.approx(expected, abs=1e-6)


def test_sharpness_is_the_variance_of_the_prediction() -> None:
    assert sharpness(HIST) == pytest.approx(P.astype(float).var(1).sum(), abs=1e-6)


def test_a_number_of_bins_that_does_not_divide_is_an_error() -> None:
    for measure in (*BINNED, classwise_ece, debiased_ece, reliability_curve, brier_decomposition):
        with pytest.raises(ValueError, match="divisor"):
            measure(HIST, 7)


def test_reliability_curve() -> None:
    curve = reliability_curve(HIST, 15, 1)
    share, gap = plain_bins(1, 15)
    filled = curve.count > 0
    assert (curve.count[filled] / VOXELS).tolist() == pytest.approx(share.tolist())
    assert (curve.confidence - curve.accuracy)[filled].tolist() == pytest.approx(gap.tolist(), abs=1e-6)
    assert curve.upper.tolist() == pytest.approx([(i + 1) / 15 for i in range(15)])
    inside = (curve.accuracy_low <= curve.accuracy) & (curve.accuracy <= curve.accuracy_high)
    assert inside[filled].all()


def test_wilson_interval_solves_its_equation() -> None:
    """Its bounds are the proportions from which the observed one is just ``z`` standard errors away."""
    hits, count = torch.tensor([0, 3, 50, 10]), torch.tensor([10, 7, 1000, 10])
    z = 1.959963984540054
    for bound in wilson_interval(hits, count):
        distance = (hits / count - bound).abs()
        torch.testing.assert_close(
            distance, z * (bound * (1 - bound)).clamp_min(0).div(count).sqrt(), atol=1e-7, rtol=0
        )
    with pytest.raises(ValueError, match="level"):
        wilson_interval(hits, count, level=1.0)
    assert wilson_interval(torch.tensor([0]), torch.tensor([0]))[0].isnan()
