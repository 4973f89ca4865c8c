"""The true calibration error: its formula, and that the ordinary one tends to it on drawn labels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_calib.datasets.phantom.labels import POSTERIOR_UNIT
from monai_calib.phantom import load_posterior, phantom_case, posterior_distance, true_calibration_error


@pytest.fixture(scope="module")
def population():
    """Posterior (3, N) and drawn label (N,) of 40 cases, put one after the other."""
    cases = [phantom_case(index, seed=7, shape=(26, 36, 26), spacing=(1.4, 1.4, 1.4)) for index in range(40)]
    posterior = np.concatenate(
        [np.moveaxis(case.posterior * POSTERIOR_UNIT, -1, 0).reshape(3, -1) for case in cases], 1
    )
    return posterior, np.concatenate([case.label.reshape(-1) for case in cases])


def drawn_ece(probability, label, num_bins=15):
    """The ordinary expected calibration error, voxel by voxel bin by bin, as an independent reference."""
    confidence, winner = probability.max(0), probability.argmax(0)
    total = 0.0
    for b in range(num_bins):
        inside = (confidence > b / num_bins) & (confidence <= (b + 1) / num_bins)
        if inside.any():
            total += inside.sum() * abs((winner[inside] == label[inside]).mean() - confidence[inside].mean())
    return total / confidence.size


def tempered(probability, temperature):
    raised = probability ** (1.0 / temperature)
    return raised / raised.sum(0)


def test_the_posterior_is_calibrated_against_its_labels(population):
    posterior, label = population
    ambiguous = posterior.max(0) < 0.95
    assert ambiguous.mean() > 0.02
    assert true_calibration_error(posterior, posterior) == 0.0
    assert drawn_ece(posterior, label) < 1e-3
    assert drawn_ece(posterior[:, ambiguous], label[ambiguous]) < 0.02  # patches of some voxels: few independent draws


@pytest.mark.parametrize("temperature", [0.3, 0.6, 1.7, 3.0])
def test_the_ordinary_error_on_drawn_labels_tends_to_the_true_one(population, temperature):
    posterior, label = population
    ambiguous = posterior.max(0) < 0.95
    predictor = tempered(posterior, temperature)
    true = true_calibration_error(predictor, posterior, mask=ambiguous)
    assert true > 0.05
    assert drawn_ece(predictor[:, ambiguous], label[ambiguous]) == pytest.approx(true, abs=0.015)


def test_picking_voxels_by_their_label_makes_even_the_posterior_look_wrong(population):
    posterior, label = population
    chosen = (label > 0) & (posterior.max(0) < 0.95)
    assert posterior[0, chosen].mean() > 0.2  # yet none of them is background: a gap of 0.2 and more in that class


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 5), st.integers(1, 40), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_true_error_equals_its_formula_written_as_a_loop(classes, voxels, num_bins, seed):
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.ones(classes), voxels).T, rng.dirichlet(np.ones(classes), voxels).T
    gaps = [0.0] * num_bins
    distance = 0.0
    for i in range(voxels):
        k = int(np.argmax(p[:, i]))
        gaps[min(math.ceil(p[k, i] * num_bins), num_bins) - 1] += q[k, i] - p[k, i]
        distance += sum(abs(p[c, i] - q[c, i]) for c in range(classes)) / 2
    assert true_calibration_error(p, q, num_bins) == pytest.approx(sum(map(abs, gaps)) / voxels, abs=1e-12)
    assert posterior_distance(p, q) == pytest.approx(distance / voxels, abs=1e-12)
    assert true_calibration_error(p, q, num_bins) <= posterior_distance(p, q) + 1e-12


def test_shapes_that_disagree_are_named():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        true_calibration_error(np.full((2, 3), 0.5), np.full((2, 4), 0.5))
    with pytest.raises(ValueError, match="mask of 3 voxels, got 4"):
        true_calibration_error(np.full((2, 3), 0.5), np.full((2, 3), 0.5), mask=np.ones(4))
    with pytest.raises(ValueError, match="No voxel left"):
        posterior_distance(np.full((2, 3), 0.5), np.full((2, 3), 0.5), mask=np.zeros(3))
    with pytest.raises(ValueError, match="at least one bin"):
        true_calibration_error(np.full((2, 3), 0.5), np.full((2, 3), 0.5), num_bins=0)


def test_a_label_file_is_no_posterior(tmp_path):
    import nibabel as nib

    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4)), tmp_path / "label.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3, 2), np.uint8), np.eye(4)), tmp_path / "zeros.nii.gz")
    with pytest.raises(ValueError, match=r"label\.nii\.gz: expected a 4D posterior"):
        load_posterior(tmp_path / "label.nii.gz")
    with pytest.raises(ValueError, match=r"zeros\.nii\.gz: the classes do not add up to 1"):
        load_posterior(tmp_path / "zeros.nii.gz")
