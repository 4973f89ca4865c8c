"""Grouping of runs: seeds into methods, methods measured alike into comparisons, and what stays out of a mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from synthetic_runs import write_run

from monai_calib.metrics.regions import Region
from monai_calib.report.columns import Column
from monai_calib.report.comparison import Comparison, compare
from monai_calib.report.findings import findings, reading
from monai_calib.report.grouping import identity_of, labels_of
from monai_calib.report.runs import read_run, read_runs
from monai_calib.report.tables import result_table


@pytest.fixture(scope="module")
def comparison(run_folders: list[Path]) -> Comparison:
    (only,) = compare(read_runs(run_folders))
    return only


def column(comparison: Comparison, kind: str, reduction: str = "macro") -> Column:
    protocol = next(p for p in comparison.protocols if p.name == "by_region")
    band = Region.parse("boundary:2mm")
    return next(m for m in comparison.calibration_columns(protocol, band, reduction) if m.kind == kind)


def test_seeds_become_one_method_and_failures_stay_apart(comparison: Comparison) -> None:
    assert [method.label for method in comparison.methods] == ["ce", "dice_ce", "nacl"]
    assert [run.seed for run in comparison.methods[0].runs] == ["1", "2"]
    assert [run.seed for run in comparison.methods[0].failed] == ["3"]
    assert comparison.failed == ()


def test_a_method_of_failures_only_is_listed_and_not_compared(run_folders: list[Path]) -> None:
    (only,) = compare(read_runs([run_folders[2], run_folders[3]]))
    assert [method.label for method in only.methods] == ["dice_ce"]
    assert [method.label for method in only.failed] == ["ce"]


def test_estimates_are_means_over_seeds_then_cases(comparison: Comparison) -> None:
    ece = column(comparison, "ece")
    first, second = (run.values["ece_boundary2mm_15bins"] for run in comparison.methods[0].runs)
    estimate = comparison.estimate(comparison.methods[0].runs, ece)
    assert estimate.interval.value == pytest.approx((first.mean() + second.mean()) / 2)
    assert estimate.interval.low < estimate.interval.value < estimate.interval.high
    assert estimate.spread == pytest.approx(abs(first.mean() - second.mean()) / np.sqrt(2))
    assert np.isnan(comparison.estimate(comparison.methods[0].runs[:1], ece).spread)


def test_pooled_figures_come_from_the_pooled_histogram(comparison: Comparison) -> None:
    runs = comparison.methods[0].runs
    estimate = comparison.estimate(runs, column(comparison, "ece", "micro"))
    assert estimate.interval.value == pytest.approx(
        np.mean([run.summary["ece_boundary2mm_15bins_micro"] for run in runs])
    )
    assert np.isnan(estimate.interval.low), "a mean over cases is another figure, and so is its interval"


def test_runs_align_by_case_whatever_their_order(tmp_path: Path) -> None:
    settings = {"loss_name": "ce", "seed": 1}
    forward = write_run(tmp_path / "forward", settings, [0, 1, 2], protocols=["paper"])
    backward = write_run(tmp_path / "backward", settings | {"seed": 2}, [2, 1, 0], protocols=["paper"])
    (only,) = compare([read_run(forward), read_run(backward)])
    by_hand = [dict(zip(run.cases, run.values["mean_dice"], strict=True)) for run in only.runs]
    expected = [np.mean([values[case] for values in by_hand]) for case in only.cases]
    np.testing.assert_allclose(only.case_values(only.methods[0].runs, only.overlap_columns()[0]), expected)


def test_other_settings_make_another_method_and_name_it(tmp_path: Path) -> None:
    common = {"bundle": "b", "loss_name": "mbls", "network_name": "unet", "seed": 1}
    folders = [
        write_run(tmp_path / "a", common | {"loss_args": {"margin": 5}}, [0, 1], protocols=["paper"]),
        write_run(tmp_path / "b", common | {"loss_args": {"margin": 10}}, [0, 1], protocols=["paper"]),
        write_run(tmp_path / "c", common | {"loss_args": {}, "network_name": "swin"}, [0, 1], protocols=["paper"]),
    ]
    (only,) = compare(read_runs(folders))
    labels = [method.label for method in only.methods]
    assert labels == ["mbls · margin 5 · unet", "mbls · margin 10 · unet", "mbls · swin"]


def test_settings_that_tell_nothing_apart_are_not_in_the_name() -> None:
    settings = [
        {"loss_name": "ce", "epochs": 10, "loss_args": {}},
        {"loss_name": "mbls", "epochs": 10, "loss_args": {"margin": 5.0}},
        {"loss_name": "mbls", "epochs": 10, "loss_args": {"margin": 5.0}, "posthoc": "vector", "posthoc_region": "all"},
        {"loss_name": "nacl", "epochs": 10},
        {"loss_name": "nacl", "epochs": 10, "loss_args": {"kernel_size": 5}, "train_seconds": 3.5},
    ]
    labels = labels_of([dict(identity_of(one)) for one in settings])
    assert labels == ["ce", "mbls", "mbls + vector", "nacl", "nacl · kernel size 5"]
    longer = labels_of([dict(identity_of(one)) for one in (settings[0], settings[3] | {"epochs": 20})])
    assert longer == ["ce · epochs 10", "nacl · epochs 20"], "another training is told, whatever the loss"


def test_seeds_that_agree_are_counted_and_pairs_turned_to_the_best(comparison: Comparison) -> None:
    ece = column(comparison, "ece")
    item = findings(comparison, ece)
    means = {m.label: {run.seed: np.mean(run.values[ece.metric.name]) for run in m.runs} for m in comparison.methods}
    for test in item.pairs:
        signs = [np.sign(means[test.first][seed] - means[test.second][seed]) for seed in ("1", "2")]
        agreeing = sum(sign == np.sign(test.difference.value) for sign in signs)
        assert item.seeds(test) == (agreeing, 2)
    best = min(means, key=lambda label: np.mean(list(means[label].values())))
    against = item.against_best()
    assert {test.second for test in against} == {best}
    assert {test.first for test in against} == set(means) - {best}
    for test in against:
        assert test.difference.low <= test.difference.value <= test.difference.high
        assert test.difference.value >= 0


@pytest.mark.parametrize(
    "other",
    [
        {"numbers": [0, 1, 2]},
        {"protocols": ["by_region"]},
        {"class_names": ("background", "head", "tail")},
    ],
)
def test_runs_measured_otherwise_are_not_compared(tmp_path: Path, other: dict[str, list[str]]) -> None:
    usual = {"numbers": [0, 1], "protocols": ["paper"]}
    first = write_run(tmp_path / "first", {"loss_name": "ce", "seed": 1}, **usual)
    second = write_run(tmp_path / "second", {"loss_name": "nacl", "seed": 1}, **(usual | other))
    assert [len(part.methods) for part in compare(read_runs([first, second]))] == [1, 1]


def test_seeds_do_not_add_to_the_subjects_of_a_ranking(comparison: Comparison) -> None:
    ranking = findings(comparison, column(comparison, "ece")).ranking
    assert ranking is not None
    assert ranking.num_subjects == len(comparison.cases) == 6
    means = np.stack([comparison.case_values(m.runs, column(comparison, "ece")) for m in comparison.methods], axis=1)
    ranks = means.argsort(axis=1).argsort(axis=1) + 1
    np.testing.assert_allclose(ranking.mean_ranks, ranks.mean(axis=0))


@pytest.mark.parametrize(("subjects", "possible"), [(5, False), (6, True)])
def test_tests_that_cannot_reach_significance_say_so(subjects: int, possible: bool, tmp_path: Path) -> None:
    """Six subjects that all agree give p = 2/64 for one pair, five 2/32: the smallest there is."""
    for loss, temperature in (("ce", 1.0), ("dice_ce", 0.2)):
        settings = {"loss_name": loss, "seed": 1, "split": "test"}
        write_run(tmp_path / loss, settings, range(subjects), temperature=temperature, protocols=["by_region"])
    (only,) = compare(read_runs([tmp_path]))
    item = findings(only, column(only, "nll"))
    assert item.pairs[0].p_holm == pytest.approx(item.least_p) == pytest.approx(2 / 2**subjects)
    assert bool(item.hopeless) != possible
    table = result_table(only, only.protocols[0], Region.parse("boundary:2mm"), "macro")
    sentences = " ".join(reading(table, [findings(only, each) for each in table.columns]))
    assert ("no test can tell methods apart" in sentences) != possible
