"""Intervals over cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_calib.metrics import (
    CalibrationHistogram,
    bootstrap_difference,
    bootstrap_interval,
    bootstrap_mean,
    bootstrap_reliability,
    classwise_ece,
    ece,
    nll,
    reliability_curve,
)


def case(confidence: float, right: int, wrong: int) -> CalibrationHistogram:
    hist = CalibrationHistogram(2)
    label = torch.tensor([[0] * right + [1] * wrong])
    p = torch.full((label.shape[1],), confidence)
    hist.update(torch.stack([p, 1 - p])[None], label, from_logits=False)
    return hist


def cases(number: int = 12, seed: int = 0) -> list[CalibrationHistogram]:
    rng = np.random.default_rng(seed)
    return [
        case(float(rng.uniform(0.6, 0.95)), int(rng.integers(5, 30)), int(rng.integers(1, 9))) for _ in range(number)
    ]


def test_macro_and_micro_differ_where_errors_cancel() -> None:
    two = [case(0.75, 20, 0), case(0.75, 10, 10)]  # under-confident by 0.25, over-confident by as much
    assert bootstrap_interval(two, ece, "macro").value == pytest.approx(0.25)
    assert bootstrap_interval(two, ece, "micro").value == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("measure", [ece, nll, classwise_ece])
def test_values_are_the_plain_ones(measure) -> None:  # type: ignore[no-untyped-def]
    some = cases()
    pooled = CalibrationHistogram(2)
    for one in some:
        pooled.merge(one)
    macro, micro = (bootstrap_interval(some, measure, how, samples=50) for how in ("macro", "micro"))  # type: ignore[arg-type]
    assert macro.value == pytest.approx(np.mean([measure(one) for one in some]))
    assert micro.value == pytest.approx(measure(pooled))
    assert macro.low <= macro.value <= macro.high


def test_width_is_that_of_the_standard_error() -> None:
    some = cases(60)
    spread = np.std([ece(one) for one in some]) / math.sqrt(60)
    interval = bootstrap_interval(some, ece, level=0.95, samples=4000)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * spread, rel=0.1)


def test_groups_are_drawn_as_a_whole() -> None:
    some = cases(10)
    doubled = [one for one in some for _ in range(2)]
    subjects = [i for i in range(10) for _ in range(2)]
    by_subject = bootstrap_interval(doubled, ece, groups=subjects, seed=4)
    assert by_subject[:3] == pytest.approx(bootstrap_interval(some, ece, seed=4)[:3])
    by_case = bootstrap_interval(doubled, ece, seed=4)
    assert by_case.high - by_case.low < by_subject.high - by_subject.low


def test_empty_cases_are_left_out_and_counted() -> None:
    some = [*cases(4), CalibrationHistogram(2)]
    interval = bootstrap_interval(some, ece, samples=20)
    assert (interval.cases, interval.left_out) == (4, 1)
    assert interval.value == pytest.approx(np.mean([ece(one) for one in some[:4]]))
    nothing = bootstrap_interval([CalibrationHistogram(2)], ece, "micro")
    assert math.isnan(nothing.value)
    assert (nothing.cases, nothing.left_out) == (0, 1)


def test_same_seed_same_interval() -> None:
    some = cases()
    assert bootstrap_interval(some, ece, seed=1) == bootstrap_interval(some, ece, seed=1)
    assert bootstrap_interval(some, ece, seed=1) != bootstrap_interval(some, ece, seed=2)


def test_reliability_bands_hold_the_curve_and_widen_with_spread_between_cases() -> None:
    some = cases(20)
    pooled = CalibrationHistogram(2)
    for one in some:
        pooled.merge(one)
    curve, plain = bootstrap_reliability(some, samples=300), reliability_curve(pooled)
    torch.testing.assert_close(curve.accuracy, plain.accuracy, equal_nan=True)
    filled = curve.count > 0
    assert (curve.accuracy_low <= curve.accuracy + 1e-9)[filled].all()
    assert (curve.accuracy_high >= curve.accuracy - 1e-9)[filled].all()


def test_wrong_settings_are_refused() -> None:
    some = cases(2)
    for settings, message in (
        ({"reduction": "mean"}, "reduction"),
        ({"groups": [1]}, "groups"),
        ({"level": 0.0}, "level"),
        ({"samples": 0}, "samples"),
    ):
        with pytest.raises(ValueError, match=message):
            bootstrap_interval(some, ece, **settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cases"):
        bootstrap_interval([], ece)
    with pytest.raises(ValueError, match="expected a histogram with"):
        bootstrap_reliability([some[0], CalibrationHistogram(2, num_bins=480)])


def test_differences_resample_subjects_and_not_their_cases() -> None:
    """Two hippocampi of a subject are no two samples: their interval is that of one of them."""
    generator = np.random.default_rng(0)
    subjects = generator.normal(0.01, 0.03, 40)
    before = generator.normal(0.1, 0.01, 40)
    pairs = [np.repeat(before, 2), np.repeat(before + subjects, 2)]
    groups = [f"subject {i // 2}" for i in range(80)]
    one, both = bootstrap_difference(before, before + subjects), bootstrap_difference(*pairs, groups=groups)
    assert both[:3] == pytest.approx(np.array(one[:3]), abs=1e-12)
    by_case = bootstrap_difference(*pairs)
    assert by_case.high - by_case.low < 0.8 * (both.high - both.low)
    assert (one.high - one.low)[0] == pytest.approx(2 * 1.96 * subjects.std() / np.sqrt(40), rel=0.15)


def test_many_metrics_at_once_are_each_by_itself() -> None:
    table = np.random.default_rng(1).normal(size=(30, 5))
    table[3, 2], table[:, 4] = np.nan, np.nan
    groups = [i // 3 for i in range(30)]
    together = bootstrap_mean(table, groups)
    for j in range(4):
        alone = bootstrap_mean(table[:, j], groups)
        for one, many in zip(alone, together, strict=True):
            assert one[0] == pytest.approx(many[j], abs=1e-12)
    assert together.cases.tolist() == [30, 30, 29, 30, 0]
    assert np.isnan(together.value[4])
    assert np.isnan(together.low[4])


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="after: expected the shape of before"):
        bootstrap_difference([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="cases: expected at least one"):
        bootstrap_mean(np.zeros((0, 2)))
