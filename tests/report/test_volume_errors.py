"""Volume errors from histograms against the volumes themselves."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from synthetic_runs import CLASS_NAMES, case, prediction

from monai_calib.metrics import CalibrationHistogram
from monai_calib.metrics.evaluation import volume_errors
from monai_calib.report.runs import read_run


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


def test_without_true_foreground_there_is_no_error() -> None:
    empty = CalibrationHistogram(len(CLASS_NAMES))
    empty.update(torch.zeros(1, len(CLASS_NAMES), 4), torch.zeros(1, 4))
    assert all(math.isnan(value) for value in volume_errors(empty, empty.empty_like()).values())
