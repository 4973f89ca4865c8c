"""Expected volumes and Dice: closed forms, and coverage under labels drawn from the phantom's posterior."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_calib.clinical import VolumeFit, VolumeModel, expected_dice, expected_volume, volume_deviation
from monai_calib.datasets.phantom.labels import POSTERIOR_UNIT, draw_labels
from monai_calib.phantom import phantom_case

SPACING = (1.5, 1.5, 1.5)


def test_deviation_is_the_double_sum() -> None:
    p = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    spacing, length = (1.0, 2.0, 0.5), 1.7
    grid = torch.stack(
        torch.meshgrid(*[torch.arange(n) * s for n, s in zip(p.shape, spacing, strict=True)], indexing="ij")
    )
    place = grid.flatten(1).T.double()
    s = (p * (1 - p)).sqrt().flatten()
    correlation = (-torch.cdist(place, place).square() / (2 * length**2)).exp()
    expected = math.prod(spacing) / 1000 * math.sqrt(float(s @ correlation @ s))
    assert volume_deviation(p, spacing, length) == pytest.approx(expected, rel=1e-9)


def test_independent_voxels_have_the_binomial_deviation() -> None:
    p = torch.full((1, 20, 20, 20), 0.2)
    estimate = expected_volume(torch.cat([1 - p, p]), (1, 1, 1), 0.0)[0]
    assert estimate.ml == pytest.approx(1.6)
    assert estimate.high_ml - estimate.ml == pytest.approx(1.959964 * math.sqrt(8000 * 0.2 * 0.8) / 1000, rel=1e-5)


def test_a_sure_prediction_has_no_interval() -> None:
    p = torch.zeros(2, 4, 4)
    p[1, 1:3, 1:3] = 1.0
    p[0] = 1 - p[1]
    assert expected_volume(p, (10.0, 10.0), 5.0)[0] == pytest.approx((0.4, 0.4, 0.4, 0.4))


def posterior(index: int) -> np.ndarray:
    return phantom_case(index, seed=5, shape=(24, 32, 24), spacing=SPACING).posterior


@pytest.mark.slow
def test_intervals_cover_drawn_labels_once_the_correlation_is_fitted() -> None:
    rng = np.random.default_rng(0)
    cases = [posterior(i) for i in range(4)]
    probabilities = [torch.from_numpy(np.moveaxis(q, -1, 0) * POSTERIOR_UNIT) for q in cases]
    fit = VolumeFit(3)
    for q, p in zip(cases, probabilities, strict=True):
        for _ in range(4):
            fit.update(p, torch.from_numpy(draw_labels(rng, q, SPACING)), SPACING)
    models = fit.models()
    # neighbours are drawn together over 2 mm
    assert all(1.0 < model.correlation_mm < 6.0 for model in models)

    covered, too_narrow, total = 0, 0, 0
    for q, p in zip(cases, probabilities, strict=True):
        fitted, independent = expected_volume(p, SPACING, models), expected_volume(p, SPACING, 0.0)
        for _ in range(40):
            label = draw_labels(rng, q, SPACING)
            for k in (1, 2):
                truth = (label == k).sum() * math.prod(SPACING) / 1000
                covered += fitted[k - 1].low_ml <= truth <= fitted[k - 1].high_ml
                too_narrow += independent[k - 1].low_ml <= truth <= independent[k - 1].high_ml
                total += 1
    assert covered / total > 0.9
    assert too_narrow / total < 0.75


def test_errors_beyond_any_correlation_become_inflation() -> None:
    fit = VolumeFit(2, longest_mm=1.0)
    p = torch.zeros(1, 12, 12, 12)
    p[:, 4:8, 4:8, 4:8] = 0.5
    for _ in range(3):
        fit.update(torch.cat([1 - p, p]), torch.ones(12, 12, 12), (1.0, 1.0, 1.0))
    model = fit.models()[0]
    assert model.correlation_mm == pytest.approx(1.0)
    assert model.inflation > 5
    with pytest.raises(ValueError, match="no case to fit on"):
        VolumeFit(2).models()


def test_expected_dice_is_the_mean_dice_over_drawn_labels() -> None:
    rng = np.random.default_rng(1)
    q = posterior(0)
    p = torch.from_numpy(np.moveaxis(q, -1, 0) * POSTERIOR_UNIT)
    predicted = p.argmax(0).numpy()
    drawn = np.zeros((60, 2))
    for i in range(60):
        label = draw_labels(rng, q, SPACING)
        for k in (1, 2):
            drawn[i, k - 1] = (
                2 * ((label == k) & (predicted == k)).sum() / ((label == k).sum() + (predicted == k).sum())
            )
    error = drawn.std(0) / math.sqrt(len(drawn))
    np.testing.assert_array_less(np.abs(drawn.mean(0) - expected_dice(p)), 3.5 * error + 2e-3)


def test_nothing_predicted_and_nothing_expected_has_no_dice() -> None:
    p = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    assert math.isnan(expected_dice(p)[0])
    assert expected_dice(torch.tensor([[0.6, 0.6], [0.4, 0.4]])) == [0.0]


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="apply softmax"):
        expected_volume(torch.randn(2, 4, 4), (1, 1), 0.0)
    with pytest.raises(ValueError, match="apply softmax"):
        expected_dice(torch.full((2, 4), float("nan")))
    with pytest.raises(ValueError, match="one for each of 2 structures"):
        expected_volume(torch.full((3, 4, 4), 1 / 3), (1, 1), [1.0])
    with pytest.raises(ValueError, match="correlation_mm"):
        VolumeModel(-1.0)
