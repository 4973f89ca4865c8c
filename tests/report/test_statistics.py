"""Intervals and tests against closed forms, exhaustive enumeration and SciPy."""

from __future__ import annotations

from inspect import signature
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from monai_calib.metrics.bootstrap import bootstrap_ratio
from monai_calib.report.statistics import (
    bootstrap_mean,
    cliques,
    friedman_nemenyi,
    holm,
    mean_by_subject,
    paired_tests,
)

RNG = np.random.default_rng(7)


def subjects(count: int) -> list[str]:
    return [f"s{index}" for index in range(count)]


def test_bootstrap_of_two_subjects_has_three_outcomes() -> None:
    # Means 0, 1/2, 1 with chances 1/4, 1/2, 1/4: a 40 % interval is a point, a 60 % one everything.
    assert bootstrap_mean([0.0, 1.0], ["a", "b"], level=0.4) == (0.5, 0.5, 0.5)
    assert bootstrap_mean([0.0, 1.0], ["a", "b"], level=0.6) == (0.5, 0.0, 1.0)


def test_bootstrap_agrees_with_scipy_when_every_case_is_a_subject() -> None:
    values = RNG.gamma(2.0, size=40)
    seed = {"rng" if "rng" in signature(stats.bootstrap).parameters else "random_state": 3}  # SciPy from 1.15 on: rng
    expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", **seed).confidence_interval
    found = bootstrap_mean(values, subjects(40), samples=20_000)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(expected.low, rel=0.01)
    assert found.high == pytest.approx(expected.high, rel=0.01)


def test_repeating_every_case_of_a_subject_adds_no_evidence() -> None:
    values = RNG.normal(size=12)
    once = bootstrap_mean(values, subjects(12))
    thrice = bootstrap_mean(np.tile(values, 3), subjects(12) * 3)
    as_if_independent = bootstrap_mean(np.tile(values, 3), subjects(36))
    np.testing.assert_allclose(thrice, once, atol=1e-12)
    assert as_if_independent.high - as_if_independent.low < 0.75 * (once.high - once.low)


def test_undefined_cases_are_left_out_and_one_subject_has_no_interval() -> None:
    with_gaps = bootstrap_mean([0.1, np.nan, 0.3, np.inf, 0.2], subjects(5))
    assert with_gaps == bootstrap_mean([0.1, 0.3, 0.2], ["s0", "s2", "s4"])
    single = bootstrap_mean([0.1, 0.3], ["a", "a"])
    assert single.value == pytest.approx(0.2)
    assert np.isnan(single.low)
    assert np.isnan(single.high)
    assert np.isnan(bootstrap_mean([np.nan], ["a"])).all()


def test_ratio_is_that_of_sums_and_is_drawn_bin_by_bin() -> None:
    count = RNG.integers(1, 50, size=(20, 3)).astype(float)
    hits = np.floor(count * RNG.random((20, 3)))
    value, low, high = bootstrap_ratio(hits, count, subjects(20))
    np.testing.assert_allclose(value, hits.sum(0) / count.sum(0))
    for column in range(3):
        alone = bootstrap_ratio(hits[:, column], count[:, column], subjects(20))
        np.testing.assert_allclose([part[column] for part in (value, low, high)], [float(part) for part in alone])


def test_empty_bins_are_undefined_and_those_of_one_subject_have_no_interval() -> None:
    count = np.zeros((6, 3))
    count[0, 1:] = 10
    count[1, 2] = 10
    value, low, high = bootstrap_ratio(0.5 * count, count, subjects(6))
    assert np.isnan([value[0], low[0], high[0]]).all()
    assert value[1] == 0.5
    assert np.isnan([low[1], high[1]]).all()
    assert [value[2], low[2], high[2]] == [0.5, 0.5, 0.5]


def test_bootstrap_refuses_lengths_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="groups: expected one a case, 2, got 1"):
        bootstrap_ratio([1.0, 2.0], [1.0, 1.0], ["a"])
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_ratio([], [], [])


def test_subject_with_an_undefined_case_is_undefined() -> None:
    names, means = mean_by_subject([1.0, np.nan, 4.0, 6.0], ["b", "b", "a", "a"])
    assert names == ["a", "b"]
    np.testing.assert_array_equal(means, [5.0, np.nan])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.999))
def test_holm_rejects_what_its_stepwise_procedure_rejects(p_values: list[float], level: float) -> None:
    rejected = set()
    for step, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] * (len(p_values) - step) > level:
            break
        rejected.add(index)
    adjusted = holm(p_values)
    # Equal p values are rejected together or not at all; the loop above stops at the first of them.
    assert {i for i, p in enumerate(adjusted) if p <= level} == rejected
    assert (adjusted >= np.array(p_values)).all()
    assert (adjusted <= 1).all()


def test_holm_leaves_out_tests_that_could_not_be_made() -> None:
    np.testing.assert_allclose(holm([0.04, np.nan, 0.01]), [0.04, np.nan, 0.02])


def test_wilcoxon_is_the_share_of_sign_flips_at_least_as_extreme() -> None:
    difference = np.array([0.3, -0.1, 0.5, 0.7, -0.2, 0.9, 1.1])
    ranks = stats.rankdata(np.abs(difference))
    expected = ranks[difference > 0].sum()
    centre = ranks.sum() / 2
    sums = np.array([ranks[np.array(signs)].sum() for signs in product([True, False], repeat=len(ranks))])
    share = float(np.mean(np.abs(sums - centre) >= abs(expected - centre)))
    (test,) = paired_tests({"a": difference, "b": np.zeros(7)}, subjects(7))
    assert test.p_value == pytest.approx(share)
    assert test.p_holm == pytest.approx(share)
    assert test.difference.value == pytest.approx(difference.mean())


def test_pairs_are_tested_on_subjects_and_corrected_together() -> None:
    base = RNG.normal(size=10)
    values = {"a": base, "b": base + 0.5 + 0.01 * RNG.normal(size=10), "c": base + 0.1 * RNG.normal(size=10)}
    tests = paired_tests(values, subjects(10))
    assert [(test.first, test.second) for test in tests] == [("a", "b"), ("a", "c"), ("b", "c")]
    np.testing.assert_allclose([test.p_holm for test in tests], holm([test.p_value for test in tests]))
    doubled = paired_tests({name: np.tile(column, 2) for name, column in values.items()}, subjects(10) * 2)
    np.testing.assert_allclose([t.p_value for t in doubled], [t.p_value for t in tests])


def test_equal_methods_and_methods_without_common_subjects() -> None:
    (same,) = paired_tests({"a": [1.0, 2.0], "b": [1.0, 2.0]}, ["1", "2"])
    assert same.p_value == 1.0
    (apart,) = paired_tests({"a": [1.0, np.nan], "b": [np.nan, 2.0]}, ["1", "2"])
    assert apart.num_subjects == 0
    assert np.isnan([apart.p_value, apart.p_holm, apart.difference.value]).all()


# Two-tailed Nemenyi test at 0.05, Demšar 2006, table 5(a).
DEMSAR_Q = {3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}


@pytest.mark.parametrize("size", DEMSAR_Q)
def test_critical_difference_is_the_published_one(size: int) -> None:
    table = RNG.normal(size=(14, size))
    ranking = friedman_nemenyi({f"m{k}": table[:, k] for k in range(size)}, subjects(14), lower_is_better=True)
    assert ranking.critical_difference == pytest.approx(
        DEMSAR_Q[size] * np.sqrt(size * (size + 1) / (6 * 14)), rel=5e-4
    )


def test_friedman_ranks_and_statistic_from_the_formula() -> None:
    table = RNG.normal(size=(9, 4))
    ranks = np.array([[1 + sum(other < value for other in row) for value in row] for row in table])
    ranking = friedman_nemenyi({name: table[:, k] for k, name in enumerate("abcd")}, subjects(9), lower_is_better=True)
    np.testing.assert_allclose(ranking.mean_ranks, ranks.mean(axis=0))
    statistic = 12 * 9 / (4 * 5) * ((ranks.mean(axis=0) ** 2).sum() - 4 * 5**2 / 4)
    assert ranking.p_value == pytest.approx(stats.chi2.sf(statistic, 3))
    upside_down = friedman_nemenyi({n: table[:, k] for k, n in enumerate("abcd")}, subjects(9), lower_is_better=False)
    np.testing.assert_allclose(upside_down.mean_ranks, 5 - ranking.mean_ranks)


def test_friedman_leaves_out_incomplete_subjects_and_says_when_it_cannot() -> None:
    values = {"a": [1.0, 2.0, 3.0], "b": [2.0, 3.0, np.nan], "c": [3.0, 4.0, 5.0]}
    assert friedman_nemenyi(values, subjects(3), True).num_subjects == 2
    with pytest.raises(ValueError, match="at least 3 methods"):
        friedman_nemenyi({"a": [1.0, 2.0], "b": [1.0, 2.0]}, subjects(2), True)
    tied = friedman_nemenyi({name: [1.0, 2.0] for name in "abc"}, subjects(2), True)
    assert tied.p_value == 1.0
    np.testing.assert_array_equal(tied.mean_ranks, [2.0, 2.0, 2.0])


@given(st.lists(st.floats(1, 9), min_size=2, max_size=9), st.floats(0.01, 5))
def test_cliques_join_exactly_the_pairs_within_the_difference(ranks: list[float], critical: float) -> None:
    ordered = np.sort(ranks)
    joined = {
        (i, j) for start, end in cliques(ranks, critical) for i in range(start, end + 1) for j in range(i, end + 1)
    }
    close = {(i, j) for i in range(len(ranks)) for j in range(i + 1, len(ranks)) if ordered[j] <= ordered[i] + critical}
    assert {(i, j) for i, j in joined if i < j} == close


def test_further_cases_of_a_subject_do_not_narrow_the_critical_difference() -> None:
    table = RNG.normal(size=(8, 3))
    spread = np.array([-1.0, 0.0, 1.0])  # three cases a subject around its mean
    nested = (table[:, None, :] + spread[None, :, None]).reshape(24, 3)
    once = friedman_nemenyi({name: table[:, k] for k, name in enumerate("abc")}, subjects(8), True)
    thrice = friedman_nemenyi(
        {name: nested[:, k] for k, name in enumerate("abc")}, list(np.repeat(subjects(8), 3)), True
    )
    np.testing.assert_allclose(thrice.mean_ranks, once.mean_ranks)
    assert (thrice.num_subjects, thrice.critical_difference, thrice.p_value) == (
        8,
        once.critical_difference,
        once.p_value,
    )
