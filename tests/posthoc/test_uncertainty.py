"""Intervals of fitted parameters, against refits on resampled subjects."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from test_sample import smooth_case

from monai_calib.metrics.bootstrap import resamples
from monai_calib.posthoc import LogitCase, NoCorrection, build_calibrator, fit
from monai_calib.posthoc.uncertainty import parameter_intervals


def subjects(count: int = 8) -> list[LogitCase]:
    """Cases that differ in how sure they are, two of each subject."""
    cases = []
    for number in range(2 * count):
        case = smooth_case(number, 12)
        sharper = case.logits * (0.7 + 0.08 * (number // 2))
        cases.append(LogitCase(case.name, sharper, case.label, spacing=case.spacing, subject=f"s{number // 2}"))
    return cases


@pytest.mark.parametrize("method", ["temperature", "vector", "boundary_temperature", "classwise_temperature"])
def test_intervals_are_those_of_refits_on_resampled_subjects(method: str) -> None:
    cases = subjects()
    arguments = {"knots": (-2.0, 2.0)} if method == "boundary_temperature" else {}
    calibrator = build_calibrator(method, 3, "all", arguments)
    fit([calibrator], cases)
    found = parameter_intervals(calibrator, cases, samples=60)
    weights = resamples(8, 60, 0).astype(int)
    drawn: dict[str, list[float]] = {interval.name: [] for interval in found}
    for row in weights:
        again = build_calibrator(method, 3, "all", arguments)
        fit([again], [case for i, times in enumerate(row) for case in cases[2 * i : 2 * i + 2] * int(times)])
        optimum = again.optimum()
        assert optimum is not None
        for name, value in again.numbers(optimum).items():
            drawn[name].append(value)
    assert found
    for name, value, low, high in found:
        expected = np.quantile(drawn[name], [0.025, 0.975])
        width = expected[1] - expected[0]
        assert low < value < high, name
        assert abs(low - expected[0]) < 0.2 * width, name
        assert abs(high - expected[1]) < 0.2 * width, name


def sure_outside(count: int = 8) -> list[LogitCase]:
    """Two classes; far off the predicted boundary every voxel is right, and on the right of it much less sure."""
    cases = []
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        far = (torch.arange(24.0) - 11.5).expand(24, 24)
        margin = torch.where(far > 5, 0.05, far * (1.0 + 0.1 * number))
        label = (torch.rand(24, 24, generator=generator) < (0.5 * margin).sigmoid()).long()
        label[:, :5], label[:, -7:] = 0, 1
        logits = torch.stack([-margin / 2, margin / 2])
        cases.append(LogitCase(str(number), logits, label, spacing=(1.0, 1.0), subject=str(number)))
    return cases


def test_intervals_know_the_penalty_and_the_bounds_of_the_fit() -> None:
    cases, knots = sure_outside(), {"knots": (-10.0, -5.0, -1.0, 1.0, 5.0, 10.0)}
    calibrator = build_calibrator("boundary_temperature", 2, "all", knots)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit([calibrator], cases)
    temperatures = calibrator.numbers(calibrator.optimum())
    at_bound = {name for name, value in temperatures.items() if not 0.0501 < value < 19.99}
    found = parameter_intervals(calibrator, cases)
    assert at_bound, "the cases are made so"
    assert {interval.name for interval in found} == temperatures.keys() - at_bound
    assert all(low < value < high for _, value, low, high in found)


def test_isotonic_a_bound_and_a_single_subject_have_no_intervals() -> None:
    cases = subjects(2)
    isotonic, temperature = build_calibrator("isotonic", 3, "all"), build_calibrator("temperature", 3, "all")
    fit([isotonic, temperature], cases)
    assert parameter_intervals(isotonic, cases) == []
    assert len(parameter_intervals(temperature, cases)) == 1
    assert parameter_intervals(temperature, cases[:2]) == []
    assert parameter_intervals(NoCorrection(3), cases) == []
    certain = [LogitCase("a", c.logits, c.logits.argmax(0), spacing=c.spacing, subject=c.subject) for c in cases]
    bounded = build_calibrator("temperature", 3, "all")
    with pytest.warns(UserWarning, match="end of the range"):
        fit([bounded], certain)
    assert parameter_intervals(bounded, certain) == []
