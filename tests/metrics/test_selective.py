"""Risk and coverage of voxels, by brute force, by closed forms, and within the bounds of the exactly sorted ones."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from monai_calib.metrics import CalibrationHistogram, augrc, aurc, excess_aurc
from monai_calib.metrics.selective import augrc_of_groups, aurc_of_groups, tie_groups


def aurc_sorted(errors: np.ndarray) -> float:
    """Straight from the definition, for errors ordered from the surest."""
    return float(np.mean([errors[:i].mean() for i in range(1, len(errors) + 1)]))


def augrc_sorted(errors: np.ndarray) -> float:
    """Area under the polygon through the points (i / N, errors among the first i / N)."""
    risk = np.concatenate([[0.0], np.cumsum(errors)]) / len(errors)
    return float((risk[1:] + risk[:-1]).mean() / 2)


def histogram(confidence: np.ndarray, errors: np.ndarray) -> CalibrationHistogram:
    """Two classes; the first is the top label with this confidence, and right where there is no error."""
    hist = CalibrationHistogram(2)
    p = torch.from_numpy(confidence).float()
    hist.update(torch.stack([p, 1 - p])[None], torch.from_numpy(errors.astype(np.int64))[None], from_logits=False)
    return hist


def test_ties_count_with_the_mean_over_their_orders() -> None:
    errors = np.array([0.0, 1.0, 0.2, 0.7, 0.1])
    groups = tie_groups([0.9, 0.5, 0.5, 0.5, 0.1], errors)
    orders = [[0, *order, 4] for order in itertools.permutations((1, 2, 3))]
    assert aurc_of_groups(*groups[:2]) == pytest.approx(np.mean([aurc_sorted(errors[order]) for order in orders]))
    assert augrc_of_groups(*groups[:2]) == pytest.approx(np.mean([augrc_sorted(errors[order]) for order in orders]))


def test_bounds_are_the_best_and_the_worst_order_of_tied_voxels() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.7, 0.7, 0.6])
    errors = np.array([0, 1, 0, 1, 0, 1])
    orders = [
        errors[[*first, *second, 5]]
        for first in itertools.permutations((0, 1, 2))
        for second in itertools.permutations((3, 4))
    ]
    hist = histogram(confidence, errors)
    for of_histogram, of_order in ((aurc, aurc_sorted), (augrc, augrc_sorted)):
        areas = [of_order(order) for order in orders]
        assert of_histogram(hist) == pytest.approx((np.mean(areas), min(areas), max(areas)))


@pytest.mark.parametrize("seed", range(5))
def test_areas_of_the_sorted_voxels_lie_within_the_bounds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = (1 - 0.5 * rng.beta(0.3, 1.0, 4000)).astype(np.float32)
    errors = (rng.random(4000) > confidence).astype(float)
    hist, order = histogram(confidence, errors), np.argsort(-confidence, kind="stable")
    best = aurc_sorted(np.sort(errors))
    for found, exact in (
        (aurc(hist), aurc_sorted(errors[order])),
        (augrc(hist), augrc_sorted(errors[order])),
        (excess_aurc(hist), aurc_sorted(errors[order]) - best),
    ):
        assert found.low - 1e-12 <= exact <= found.high + 1e-12
        assert found.low <= found.value <= found.high
        # float32 confidences share few fine bins: the bounds say something
        assert found.high - found.low < 0.1 * exact + 1e-3


def test_augrc_is_made_of_accuracy_and_the_roc_of_failures() -> None:
    """Traub et al., equation of the AUGRC for binary losses: ``(1 - AUROC) a (1 - a) + (1 - a)^2 / 2``."""
    rng = np.random.default_rng(1)
    confidence = rng.choice([0.55, 0.7, 0.8, 0.95], 500)
    errors = (rng.random(500) > confidence).astype(float)
    right, wrong = confidence[errors == 0], confidence[errors == 1]
    accuracy = 1 - errors.mean()
    area = mannwhitneyu(right, wrong).statistic / (len(right) * len(wrong))  # AUROC
    expected = (1 - area) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
    assert augrc(histogram(confidence, errors)).value == pytest.approx(expected)


def test_a_confidence_that_tells_nothing_and_one_that_tells_all() -> None:
    errors = np.array([0, 0, 0, 1] * 25)
    same = histogram(np.full(100, 0.75), errors)
    assert aurc(same).value == pytest.approx(0.25)
    assert augrc(same).value == pytest.approx(0.125)
    perfect = histogram(np.where(errors == 1, 0.6, 0.9), errors)
    assert excess_aurc(perfect).value == pytest.approx(0, abs=1e-12)
    assert aurc(perfect).value == pytest.approx(aurc_sorted(np.sort(errors)))


def test_counts_of_a_data_set_need_no_more_than_a_histogram() -> None:
    """The area of a thousand times the voxels is that of their shares, to one part in the number of voxels."""
    rng = np.random.default_rng(2)
    confidence = rng.uniform(0.5, 1, 2000)
    hist = histogram(confidence, rng.random(2000) > confidence)
    many = hist.times(10**6)
    assert augrc(many) == pytest.approx(augrc(hist), rel=1e-9)
    assert aurc(many).value == pytest.approx(aurc(hist).value, rel=2e-2)
    assert aurc(many).low <= aurc(many).value <= aurc(many).high


def test_no_voxel_is_nan_and_no_top_label_is_refused() -> None:
    empty = CalibrationHistogram(2)
    for of_histogram in (aurc, augrc, excess_aurc):
        assert all(math.isnan(value) for value in of_histogram(empty))
        with pytest.raises(ValueError, match="no top label"):
            of_histogram(CalibrationHistogram(2, activation="sigmoid"))
