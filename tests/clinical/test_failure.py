"""Failure detection and the quality threshold, by definition, independent implementations and simulation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from monai_calib.clinical import (
    QualityThreshold,
    TooFewSubjectsWarning,
    failure_detection,
    least_dice,
    reasons_to_check,
    risk_coverage,
)
from monai_calib.metrics.bootstrap import resamples
from monai_calib.transforms import QualityFlagd


def areas(confidence: np.ndarray, dice: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """AURC and AUGRC straight from their definitions; confidences all differ, or ties are broken at random."""
    order = np.lexsort([np.random.default_rng(seed).random(len(dice)), -confidence])
    risk = 1 - dice[order]
    kept = np.arange(1, len(risk) + 1)
    polygon = np.concatenate([[0], np.cumsum(risk)]) / len(risk)
    return float((np.cumsum(risk) / kept).mean()), float((polygon[1:] + polygon[:-1]).mean() / 2)


def cases(n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Dice, a confidence that follows it loosely, and two cases of each subject."""
    rng = np.random.default_rng(seed)
    dice = rng.beta(6, 2, n)
    return dice + rng.normal(0, 0.1, n), dice, [f"subject {i // 2}" for i in range(n)]


def test_values_are_those_of_the_definitions() -> None:
    confidence, dice, subjects = cases()
    found = failure_detection(confidence, dice, subjects)
    assert (found.aurc.value, found.augrc.value) == pytest.approx(areas(confidence, dice))
    assert found.perfect_aurc.value == pytest.approx(areas(dice, dice)[0])
    assert found.random_aurc.value == pytest.approx(1 - dice.mean())
    assert found.e_aurc.value == pytest.approx(found.aurc.value - found.perfect_aurc.value)
    assert found.spearman.value == pytest.approx(spearmanr(confidence, dice).statistic)
    assert failure_detection(dice, dice).e_aurc.value == pytest.approx(0)
    assert risk_coverage(confidence, dice).risk.mean() == pytest.approx(found.aurc.value)


def test_ties_count_with_the_mean_over_their_orders() -> None:
    confidence, dice, _ = cases(30, seed=3)
    rough = confidence.round(1)
    drawn = np.mean([areas(rough, dice, seed) for seed in range(4000)], axis=0)
    found = failure_detection(rough, dice)
    assert (found.aurc.value, found.augrc.value) == pytest.approx(drawn, rel=2e-3)
    assert found.spearman.value == pytest.approx(spearmanr(rough, dice).statistic)
    assert risk_coverage(rough, dice).risk.mean() == pytest.approx(found.aurc.value)


def test_intervals_are_those_of_subjects_drawn_one_by_one() -> None:
    """The same draws, each as a list of cases, and the statistics of that list by other means."""
    confidence, dice, subjects = cases(24, seed=5)
    found = failure_detection(confidence, dice, subjects, samples=200, seed=7)
    rows = []
    for times in resamples(12, 200, 7).astype(int):
        drawn = [i for subject, n in enumerate(times) for i in (2 * subject, 2 * subject + 1) for _ in range(n)]
        c, d = confidence[drawn], dice[drawn]
        # a case drawn twice is a tie with itself, of equal risk: any order gives the same area
        area, general = areas(c, d)
        rows.append([area, 1 - d.mean(), areas(d, d)[0], area - areas(d, d)[0], general, spearmanr(c, d).statistic])
    for interval, column in zip(found, np.array(rows).T, strict=True):
        assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(column, [0.025, 0.975])))
        assert (interval.cases, interval.left_out) == (24, 0)


def test_a_case_without_a_confidence_is_the_least_sure_and_one_without_truth_left_out() -> None:
    nan = math.nan
    found = failure_detection([0.9, nan, 0.8, 0.7], [0.9, 0.0, 0.7, nan])
    assert found.aurc.value == pytest.approx(np.mean([0.1, (0.1 + 0.3) / 2, (0.1 + 0.3 + 1) / 3]))
    assert (found.aurc.cases, found.aurc.left_out) == (3, 1)
    assert found.spearman.value == pytest.approx(1)
    with pytest.raises(ValueError, match="expected at least two cases with a true Dice, got 1 of 3"):
        failure_detection([0.9, 0.8, 0.7], [0.9, nan, nan])
    with pytest.raises(ValueError, match="one value a case"):
        failure_detection([0.9, 0.8], [0.9, 0.8], ["a"])


def test_of_one_subject_or_a_constant_there_is_no_interval_or_no_correlation() -> None:
    one = failure_detection([0.9, 0.8], [0.9, 0.7], ["a", "a"])
    assert math.isnan(one.aurc.low)
    assert math.isnan(failure_detection([0.9, 0.9], [0.9, 0.7]).spearman.value)


def test_threshold_is_the_order_statistic_of_the_guarantee() -> None:
    rng = np.random.default_rng(0)
    confidence, dice = rng.random(60), np.where(np.arange(60) < 25, 0.5, 0.9)
    failed = np.sort(confidence[:25])
    for rate in (0.05, 0.1, 0.3, 0.5):
        fitted = QualityThreshold.fit(confidence, dice, miss_rate=rate)
        assert fitted.failed_subjects == 25
        last = failed[math.ceil((1 - rate) * 26 - 1e-9) - 1]
        assert fitted.flags(last)
        assert not fitted.flags(np.nextafter(last, 2))
        assert fitted.flagged == pytest.approx((confidence <= last).mean())
        assert fitted.flagged_good == pytest.approx((confidence[25:] <= last).mean())


def test_failed_cases_pass_no_more_often_than_stated() -> None:
    """Subjects with one to three failed cases that are alike; the rate is of a case drawn at random of the next one."""
    rng = np.random.default_rng(1)
    rate, subjects, missed, trials = 0.2, 12, 0.0, 3000
    for _ in range(trials):
        number = rng.integers(1, 4, subjects + 1)
        whose = np.repeat(np.arange(subjects + 1), number)
        confidence = rng.normal(0, 1, subjects + 1)[whose] + rng.normal(0, 0.5, len(whose))
        seen = whose < subjects
        fitted = QualityThreshold.fit(confidence[seen], np.zeros(seen.sum()), whose[seen].tolist(), miss_rate=rate)
        missed += np.mean([not fitted.flags(value) for value in confidence[~seen]])
    # of 3000 trials the standard error is at most 0.0073; far below the rate it would flag needlessly many
    assert missed / trials <= rate + 3 * 0.0073
    assert missed / trials >= rate - 1.5 / (subjects + 1) - 3 * 0.0073


def test_too_few_failures_flag_every_case_and_say_so() -> None:
    with pytest.warns(TooFewSubjectsWarning, match=r"8 validation subjects with a Dice below 0\.7, .* needs 9"):
        fitted = QualityThreshold.fit(np.arange(10) / 10, [0.5] * 8 + [0.9] * 2)
    assert not fitted.possible
    assert fitted.flags(1.0)
    assert fitted.flagged_good == 1
    again = QualityThreshold.from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False)))
    assert again == fitted
    reasons = reasons_to_check({"a": 0.9, "b": 0.8}, {}, again)
    assert len(reasons) == 1
    assert "needs 9: every case is to be looked at" in reasons[0]
    assert QualityThreshold.fit(np.arange(11) / 10, [0.5] * 9 + [0.9] * 2).possible
    with pytest.warns(TooFewSubjectsWarning, match="0 validation subjects"):
        assert QualityThreshold.fit([0.5], [0.9]).failed_subjects == 0


def test_wrong_settings_and_files_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="miss_rate between 0 and 1 and a number"):
        QualityThreshold.fit([0.5], [0.5], miss_rate=0.0)
    with pytest.raises(ValueError, match="expected a case with a true Dice"):
        QualityThreshold.fit([0.5], [math.nan])
    with pytest.raises(ValueError, match="one value a case"):
        QualityThreshold.fit([0.5, 0.6], [0.5])
    kept = QualityThreshold(0.8, 0.7, 0.1, 12).to_json()
    wrongs = ({"threshold": "0.5"}, {"miss_rate": None}, {"miss_rate": 1}, {"failed_subjects": 1.5}, {"more": 1})
    for wrong in ({}, [], {"format": kept["format"], "threshold": 0.5}, *({**kept, **change} for change in wrongs)):
        with pytest.raises(ValueError, match="Fit the threshold again"):
            QualityThreshold.from_json(wrong)
    path = tmp_path / "quality.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"quality\.json"):
        QualityFlagd(path)


def test_the_flag_of_a_case_follows_the_fitted_threshold(tmp_path) -> None:
    confidence = [least_dice(row) for row in ([0.9, 0.5], [0.6, math.nan], [0.95, 0.9], [math.nan, 0.7])]
    fitted = QualityThreshold.fit(confidence, [0.4, 0.5, 0.9, 0.6], miss_rate=0.25)
    path = tmp_path / "quality.json"
    path.write_text(json.dumps(fitted.to_json()))
    for given in (fitted, fitted.to_json(), path, str(path)):
        flag = QualityFlagd(given)
        found = flag({"expected_dice": {"a": 0.95, "b": 0.7}, "volumes": {}})["quality"]
        assert found == {"flag": "check", "reasons": ["b: expected Dice 0.70, below 0.70"]}
        assert flag({"expected_dice": {"a": 0.95, "b": 0.71}, "volumes": {}})["quality"]["flag"] == "ok"
        nothing = flag({"expected_dice": {"a": math.nan}, "volumes": {}})["quality"]
        assert nothing["reasons"] == ["nothing is found in this case"]


def test_cases_without_a_confidence_are_tied_with_each_other() -> None:
    nan = math.nan
    found = failure_detection([0.9, nan, nan], [0.9, 0.1, 0.3])
    assert found.aurc.value == pytest.approx(np.mean([0.1, (0.1 + 0.8) / 2, (0.1 + 0.9 + 0.7) / 3]))
