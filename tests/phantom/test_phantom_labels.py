"""The drawn labels follow the saved probabilities exactly, voxel by voxel, and in patches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_calib.datasets.phantom.anatomy import draw_anatomy
from monai_calib.datasets.phantom.fields import gaussian_field
from monai_calib.datasets.phantom.labels import POSTERIOR_UNIT, draw_labels, quantise_posterior

SHAPE, SPACING = (10, 14, 9), (1.5, 1.5, 3.0)


@pytest.fixture(scope="module")
def posterior():
    return quantise_posterior(draw_anatomy(np.random.default_rng(3), (12, 17, 12), (3.0, 3.0, 3.0), 1.0).posterior)


@pytest.mark.parametrize("smoothness", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("last", [8, 9])
def test_field_is_standard_normal_in_every_voxel(smoothness, last):
    rng = np.random.default_rng(0)
    draws = np.stack([gaussian_field(rng, (5, 6, last), (1.0, 2.0, 1.0), smoothness) for _ in range(4000)])
    # The sample variance of n normal values has a relative standard error of sqrt(2 / n), here 2.2 %.
    assert np.abs(draws.var(axis=0) - 1.0).max() < 0.12
    assert np.abs(draws.mean(axis=0)).max() < 5 / np.sqrt(4000)
    assert np.mean(draws < -1.0) == pytest.approx(0.158655, abs=0.01)


def test_field_correlation_is_the_gaussian_of_the_distance():
    rng = np.random.default_rng(1)
    fields = [gaussian_field(rng, (32, 32, 16), (1.0, 1.0, 2.0), 2.0) for _ in range(40)]
    for axis, step in ((0, 1.0), (1, 1.0), (2, 2.0)):
        for lag in (1, 2):
            found = np.mean([np.mean(field * np.roll(field, lag, axis)) for field in fields])
            assert found == pytest.approx(np.exp(-((lag * step) ** 2) / (4 * 2.0**2)), abs=0.03)


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 6), st.integers(0, 2**32 - 1), st.floats(0.01, 20.0))
def test_quantised_posterior_adds_up_and_stays_close(classes, seed, spread):
    exact = np.random.default_rng(seed).dirichlet(np.full(classes, spread), size=50)
    counts = quantise_posterior(exact)
    assert (counts.sum(-1, dtype=np.int64) == 2**15).all()
    assert np.abs(counts * POSTERIOR_UNIT - exact).max() <= classes * POSTERIOR_UNIT / 2


@pytest.mark.parametrize("coherence", [0.0, 2.0])
def test_label_frequencies_follow_the_posterior_in_every_voxel(posterior, coherence):
    draws, rng = 1000, np.random.default_rng(5)
    count = np.zeros(posterior.shape)
    for _ in range(draws):
        count += draw_labels(rng, posterior, (3.0, 3.0, 3.0), coherence)[..., None] == np.arange(3)
    q = posterior * POSTERIOR_UNIT
    variance = draws * q * (1 - q)
    assert (count[q == 0] == 0).all()
    assert (count[q == 1] == draws).all()
    z = ((count - draws * q) / np.sqrt(np.where(variance > 0, variance, 1)))[variance > 5]
    assert z.size > 500
    assert np.mean(z**2) == pytest.approx(1.0, abs=0.15)  # chi-square per degree of freedom
    assert np.abs(z).max() < 5.5


def test_coherent_labels_agree_with_their_neighbours_more_often(posterior):
    def agreement(coherence):
        rng = np.random.default_rng(0)
        labels = np.stack([draw_labels(rng, posterior, (3.0, 3.0, 3.0), coherence) for _ in range(30)])
        return (labels[:, 1:] == labels[:, :-1]).mean()

    assert agreement(6.0) > agreement(0.0) + 0.02
