"""Volume errors from histograms against the volumes themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from synthetic_runs import CLASS_NAMES, case, prediction

from monai_calib.report.runs import read_run
from monai_calib.report.volumes import volume_errors


def test_errors_are_those_of_summed_probabilities_and_counted_labels(run_folders: list[Path]) -> None:
    run = read_run(run_folders[0])  # ce, seed 1, noise and temperature 1
    for number in range(6):
        label = case(number)["label"].as_tensor()
        prob = prediction(label, 1.0, 1.0, 1000 + number, None).double()
        truth = float((label > 0).sum())
        expected, counted = float(prob[1:].sum()), float((prob.argmax(0) > 0).sum())
        row = run.cases.index(f"case_{number:03d}")
        assert run.values["expected_volume_bias"][row] == pytest.approx((expected - truth) / truth, abs=1e-5)
        assert run.values["expected_volume_error"][row] == pytest.approx(abs(expected - truth) / truth, abs=1e-5)
        assert run.values["argmax_volume_error"][row] == pytest.approx(abs(counted - truth) / truth, abs=1e-12)


def test_without_true_foreground_or_a_background_there_is_no_error() -> None:
    empty = np.zeros((1, 4, 3, 1))
    empty[0, 1:, 2] = 5.0
    assert np.isnan(volume_errors({("all", 1): empty}, len(CLASS_NAMES))["expected_volume_bias"]).all()
    assert volume_errors({("all", 1): empty}, 4) == {}, "as many rows as classes: several labels a voxel"
    assert volume_errors({("union", 1): empty}, 3) == {}
