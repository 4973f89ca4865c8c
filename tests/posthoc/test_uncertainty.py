"""Intervals of fitted parameters, against refits on resampled subjects."""

from __future__ import annotations

import numpy as np
import pytest
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
