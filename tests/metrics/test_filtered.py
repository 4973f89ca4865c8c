"""The QU-BraTS score, against loops over thresholds, and from the histogram against the voxels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from monai_calib.metrics import CalibrationHistogram, filtered_overlap, filtered_overlap_of_histogram


def case(seed: int = 0, n: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.beta(0.4, 0.6, n).astype(np.float32)
    return p, rng.random(n) < p


def by_definition(predicted: np.ndarray, label: np.ndarray, uncertainty: np.ndarray, points: int) -> tuple:
    """Straight from the paper's section 3, one threshold after the other."""
    dice, lost_positive, lost_negative = [], [], []
    positive, negative = predicted & label, ~predicted & ~label
    thresholds = np.linspace(0, 1, points + 1)
    for threshold in thresholds:
        kept = uncertainty <= threshold
        size = (predicted & kept).sum() + (label & kept).sum()
        dice.append(2 * (positive & kept).sum() / size if size else 1.0)
        lost_positive.append(1 - (positive & kept).sum() / positive.sum())
        lost_negative.append(1 - (negative & kept).sum() / negative.sum())

    def area(values: list[float]) -> float:
        return sum((a + b) / 2 / points for a, b in itertools.pairwise(values))

    score = (area(dice) + (1 - area(lost_positive)) + (1 - area(lost_negative))) / 3
    return thresholds, dice, lost_positive, lost_negative, score


@pytest.mark.parametrize("points", [4, 40])
def test_curves_and_score_are_those_of_the_definition(points: int) -> None:
    p, label = case()
    rng = np.random.default_rng(1)
    uncertainty = rng.random(len(p)).round(2)  # ties on thresholds, which are kept
    found = filtered_overlap(*map(torch.from_numpy, (p > 0.5, label, uncertainty)), points=points)
    for got, expected in zip(found, by_definition(p > 0.5, label, uncertainty, points), strict=True):
        assert np.asarray(got) == pytest.approx(np.asarray(expected))


@pytest.mark.parametrize("points", [8, 40])
def test_histogram_gives_the_same_as_the_voxels(points: int) -> None:
    p, label = case(2)
    hist = CalibrationHistogram(2)
    second = torch.from_numpy(p)
    hist.update(torch.stack([1 - second, second])[None], torch.from_numpy(label).long()[None], from_logits=False)
    uncertainty = 1 - (2 * second.double() - 1).abs()
    voxels = filtered_overlap(second > 0.5, torch.from_numpy(label), uncertainty, points)
    for got, expected in zip(filtered_overlap_of_histogram(hist, 1, points), voxels, strict=True):
        assert np.asarray(got) == pytest.approx(np.asarray(expected))
    with pytest.raises(ValueError, match="expected a divisor of 480"):
        filtered_overlap_of_histogram(hist, 1, points=7)


def test_an_uncertainty_that_knows_the_errors_scores_best() -> None:
    p, label = case(3)
    predicted, truth = torch.from_numpy(p > 0.5), torch.from_numpy(label)
    wrong = predicted != truth
    perfect = filtered_overlap(predicted, truth, wrong.float()).score
    nothing = filtered_overlap(predicted, truth, torch.zeros(len(p))).score
    opposite = filtered_overlap(predicted, truth, 1 - wrong.float()).score
    # only at the last threshold are the errors there: dice 1 but for half a step
    dice = 2 * (predicted & truth).sum().item() / (predicted.sum() + truth.sum()).item()
    assert perfect == pytest.approx((1 - (1 - dice) / 80 + 2) / 3)
    assert nothing == pytest.approx((dice + 2) / 3)
    assert opposite < nothing < perfect


def test_masks_empty_structures_and_wrong_values() -> None:
    label = torch.tensor([True, False, True, False])
    uncertainty = torch.tensor([0.2, 0.3, 0.9, 0.1])
    inside = torch.tensor([True, True, False, False])
    masked = filtered_overlap(label, label, uncertainty, 4, inside)
    assert masked.filtered_positive.tolist() == [1, 0, 0, 0, 0]
    assert masked.filtered_negative.tolist() == [1, 1, 0, 0, 0]
    none = filtered_overlap(~label & label, ~label & label, uncertainty, 4)
    assert none.dice.tolist() == [1] * 5
    assert all(math.isnan(value) for value in none.filtered_positive)
    # true negatives that are lost: all, then 1/2, 1/4, 1/4, 0, of which the area by trapezia is 3/8
    assert none.filtered_negative.tolist() == [1, 0.5, 0.25, 0.25, 0]
    assert none.score == pytest.approx((1 + 1 + 1 - 0.375) / 3)
    with pytest.raises(ValueError, match="from 0 to 1, got"):
        filtered_overlap(label, label, 100 * uncertainty)
    with pytest.raises(ValueError, match="one shape"):
        filtered_overlap(label, label[:2], uncertainty)
