"""On the phantom the true calibration error is known: estimates from drawn labels tend to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_calib.metrics import CalibrationHistogram, ece
from monai_calib.phantom import phantom_case, true_calibration_error

CASES = 12
EXPONENT = 2.0  # the posterior to this power, renormalised: an over-confident predictor


@pytest.fixture(scope="module")
def cases() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Prediction and posterior ``(K, X, Y, Z)``, and drawn label."""
    drawn = []
    for index in range(CASES):
        case = phantom_case(index, shape=(24, 32, 24))
        posterior = np.moveaxis(case.posterior.astype(np.float32) / 2**15, -1, 0)
        power = posterior**EXPONENT
        drawn.append((power / power.sum(0), posterior, case.label))
    return drawn


@pytest.mark.parametrize("region", ["all", "uncertain"])
def test_ece_tends_to_the_true_calibration_error(
    cases: list[tuple[np.ndarray, np.ndarray, np.ndarray]], region: str
) -> None:
    hist = CalibrationHistogram(cases[0][0].shape[0])
    for prediction, posterior, label in cases:
        mask = None if region == "all" else torch.from_numpy(posterior.max(0) < 0.99)[None]
        hist.update(prediction[None], label[None], mask, from_logits=False)
    prediction, posterior = (np.concatenate([case[i] for case in cases], axis=1) for i in (0, 1))
    mask = None if region == "all" else posterior.max(0) < 0.99
    truth = true_calibration_error(prediction, posterior, 15, mask)
    assert truth > (0.0005 if region == "all" else 0.02)
    assert ece(hist) == pytest.approx(truth, rel=0.1)


def test_the_posterior_itself_is_calibrated(cases: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    errors = []
    for number in (1, CASES):
        hist = CalibrationHistogram(cases[0][0].shape[0])
        for _, posterior, label in cases[:number]:
            hist.update(
                posterior[None], label[None], torch.from_numpy(posterior.max(0) < 0.99)[None], from_logits=False
            )
        errors.append(ece(hist))
    assert errors[1] < errors[0]
    assert errors[1] < 0.02
