"""The guarantee of conformal intervals of volumes, by closed form and by simulation on the phantom."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_calib.clinical import ConformalVolumeFit, ConformalVolumeModel, expected_volume
from monai_calib.datasets.phantom.labels import POSTERIOR_UNIT, draw_labels
from monai_calib.phantom import phantom_case

SPACING = (1.5, 1.5, 1.5)


def test_half_width_is_the_order_statistic_of_the_guarantee() -> None:
    rng = np.random.default_rng(0)
    scores = rng.exponential(size=25)
    model = ConformalVolumeModel(3.0, scores=[[float(score)] for score in scores])
    for level in (0.5, 0.8, 0.9, 0.95):
        assert model.quantile(level) == sorted(scores)[math.ceil(level * 26) - 1]


def test_subjects_weigh_the_same_whatever_their_cases() -> None:
    # Of 3 subjects and the next one, 2 must be covered: the first, and one of the two cases of the second do for
    # 1.5, both for 2.
    model = ConformalVolumeModel(3.0, scores=[[1.0], [2.0, 3.0], [4.0]])
    assert [model.quantile(level) for level in (0.25, 0.375, 0.5, 0.75)] == [1.0, 2.0, 3.0, 4.0]


def test_a_level_out_of_reach_says_how_many_subjects_it_needs() -> None:
    model = ConformalVolumeModel(3.0, scores=[[1.0]] * 17)
    with pytest.raises(ValueError, match=r"0\.95 needs at least 19 validation subjects, got 17: lower it to 0\.944"):
        model.quantile(0.95)
    assert ConformalVolumeModel(3.0, scores=[[1.0]] * 19).quantile(0.95) == 1.0
    with pytest.raises(ValueError, match="expected at least one subject"):
        ConformalVolumeFit(2).models()


class Subjects:
    """Subjects drawn at random from phantoms with a known posterior, seen by a network that is far from calibrated.

    A subject has one or two cases of one phantom; truth is drawn from the posterior, the network's probabilities are
    its square, normalised: over-confident and biased.
    """

    def __init__(self, phantoms: int = 5, draws: int = 40) -> None:
        rng = np.random.default_rng(3)
        fit = ConformalVolumeFit(3)
        for index in range(phantoms):
            posterior = phantom_case(index, seed=5, shape=(20, 24, 20), spacing=SPACING).posterior
            true = torch.from_numpy(np.moveaxis(posterior, -1, 0) * POSTERIOR_UNIT)
            seen = true.square() / true.square().sum(0)
            for _ in range(draws):
                label = torch.from_numpy(draw_labels(rng, posterior, SPACING))
                fit.update(seen, label, SPACING, subject=str(index))
        self.scores = [np.array(model.scores) for model in fit.models()]

    def draw(self, rng: np.random.Generator, structure: int) -> list[float]:
        of_phantom = self.scores[structure][rng.integers(len(self.scores[structure]))]
        return rng.choice(of_phantom, size=rng.integers(1, 3)).tolist()


@pytest.fixture(scope="module")
def subjects() -> Subjects:
    return Subjects()


@pytest.mark.parametrize(("level", "count"), [(0.9, 9), (0.95, 19), (0.8, 24)])
@pytest.mark.parametrize("structure", [0, 1])
def test_the_next_subject_is_covered_as_often_as_promised(
    subjects: Subjects, structure: int, level: float, count: int
) -> None:
    rng = np.random.default_rng(count)
    covered = np.zeros(1500)
    for i in range(len(covered)):
        model = ConformalVolumeModel(3.0, scores=[subjects.draw(rng, structure) for _ in range(count)])
        covered[i] = subjects.draw(rng, structure)[0] <= model.quantile(level)
    error = math.sqrt(level * (1 - level) / len(covered))
    assert covered.mean() >= level - 2.5 * error
    # It is not bought by endless intervals: subjects with one case would be covered level + 1 / (n + 1) at most.
    assert covered.mean() <= level + 1.5 / (count + 1) + 2.5 * error


def test_intervals_hold_the_truth_of_the_cases_they_were_fitted_on() -> None:
    rng = np.random.default_rng(0)
    posterior = phantom_case(1, seed=5, shape=(20, 24, 20), spacing=SPACING).posterior
    p = torch.from_numpy(np.moveaxis(posterior, -1, 0) * POSTERIOR_UNIT)
    labels = [torch.from_numpy(draw_labels(rng, posterior, SPACING)) for _ in range(9)]
    fit = ConformalVolumeFit(3)
    for subject, label in enumerate(labels):
        fit.update(p, label, SPACING, str(subject))
    estimates = expected_volume(p, SPACING, fit.models(), level=0.9)
    for k, estimate in enumerate(estimates, 1):
        volumes = [float((label == k).sum()) * math.prod(SPACING) / 1000 for label in labels]
        inside = [estimate.low_ml - 1e-9 <= volume <= estimate.high_ml + 1e-9 for volume in volumes]
        assert all(inside)
        # 9 subjects at 0.9: the largest error decides, so the interval ends at it.
        assert estimate.high_ml - estimate.ml == pytest.approx(max(abs(v - estimate.ml) for v in volumes))


@pytest.mark.parametrize("present", [False, True])
def test_a_network_that_is_all_but_sure_and_right_gets_a_narrow_interval(present: bool) -> None:
    # No voxel has a deviation worth a name, yet probabilities are not exactly 0 or 1: the score was infinite.
    scores = torch.randn(12, 12, 12, generator=torch.Generator().manual_seed(0)) - 22
    label = torch.zeros(12, 12, 12)
    if present:
        scores[:6], label[:6] = -scores[:6], 1
    p = scores.double().sigmoid().float()
    probability = torch.stack([1 - p, p])
    fit = ConformalVolumeFit(2)
    for subject in range(9):
        fit.update(probability, label, SPACING, str(subject))
    estimate = expected_volume(probability, SPACING, fit.models(), level=0.9)[0]
    truth = float(label.sum()) * math.prod(SPACING) / 1000
    assert estimate.low_ml - 1e-9 <= truth <= estimate.high_ml + 1e-9
    assert estimate.high_ml - estimate.low_ml < 1e-4


def test_one_that_is_sure_and_wrong_promises_nothing() -> None:
    sure = torch.zeros(2, 4, 4, 4)
    sure[0] = 1
    fit = ConformalVolumeFit(2)
    for subject in range(9):
        fit.update(sure, torch.ones(4, 4, 4), SPACING, str(subject))
    estimate = expected_volume(sure, SPACING, fit.models(), level=0.9)[0]
    assert (estimate.low_ml, estimate.high_ml) == (0.0, math.inf)
