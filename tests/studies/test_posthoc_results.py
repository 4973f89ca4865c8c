"""Every figure on the page of corrections comes from the figures kept beside it, and those from the package."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch

from monai_calib.metrics.evaluated import read_evaluated
from monai_calib.posthoc import LogitCase, TemperatureScaling, VectorScaling, evaluate_corrections, fit

STUDIES = Path(__file__).parents[2] / "studies"
BARS = {"0.05", "0.02", "0.004"}


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module("posthoc_results")


def test_kept_figures_are_consistent() -> None:
    losses = json.loads((STUDIES / "posthoc_results.json").read_text(encoding="utf-8"))
    for variants in losses.values():
        for variant in variants.values():
            assert all(low <= value <= high for value, low, high in variant["figures"].values())
            if variant["keeps_argmax"]:
                assert variant["labels_changed"] == 0
                assert variant["change"]["dsc"] == [0, 0, 0]


def drawn_split(results: ModuleType, count: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for i in range(count):
        logits = 3 * torch.randn(3, 8, 9, 7, generator=generator)
        label = torch.multinomial((logits / 2).flatten(1).softmax(0).T, 1, generator=generator)
        cases.append(LogitCase(f"case {i}", logits, label.reshape(8, 9, 7), spacing=(1.0, 1.0, 1.0)))
    run_logits = importlib.import_module("run_logits")
    settings = {"loss_name": "ce", "loss_args": {}, "seed": seed, "bundle": "b", "network_name": "n"}
    return run_logits.RunLogits(settings, ["a", "b", "c"], cases, [str(i // 2) for i in range(count)])


def test_measured_figures_are_those_of_the_package(results: ModuleType, tmp_path: Path) -> None:
    split = drawn_split(results, 4, seed=0)
    scaling = TemperatureScaling(3)
    scaling.set_temperature(2.0)
    measured = results.measured(scaling, split)
    folders = evaluate_corrections({"after": scaling}, split.cases, tmp_path, num_classes=3)
    summary = read_evaluated(folders["after"]).summary
    for name in ("ece_foreground_15bins", "ece_boundary2mm_15bins", "nll_all", "classwise_ece_paper_foreground_15bins"):
        assert math.fsum(measured["figures"][name]) / 4 == pytest.approx(summary[f"{name}_macro"])
    assert measured["pooled"]["ece_all_15bins"] == pytest.approx(summary["ece_all_15bins_micro"])
    assert measured["labels_changed"] == 0
    case = split.cases[0]
    predicted = case.logits.argmax(0)
    by_hand = [
        2 * float(((predicted == k) & (case.label == k)).sum() / ((predicted == k).sum() + (case.label == k).sum()))
        for k in (1, 2)
    ]
    assert measured["figures"]["dsc"][0] == pytest.approx(sum(by_hand) / 2)


def test_seeds_are_averaged_before_subjects_are_drawn(results: ModuleType) -> None:
    vector = VectorScaling(3, region="all")
    runs, before = [], []
    for seed in (0, 1):
        split = drawn_split(results, 4, seed)
        fit([vector], split.cases)
        runs.append(results.measured(vector, split))
        before.append(results.measured(None, split))
    summary = results.summary_of(runs, before)
    assert summary["seeds"] == [0, 1]
    assert (summary["cases"], summary["subjects"]) == (4, 2)
    for name, (value, low, high) in summary["figures"].items():
        mean = math.fsum(run["figures"][name][i] for run in runs for i in range(4)) / 8
        assert value == pytest.approx(mean, abs=1e-5)
        # Two subjects: a resample holds one of them twice, or both.
        of_subject = [sum(run["figures"][name][i] for run in runs for i in pair) / 4 for pair in ((0, 1), (2, 3))]
        assert [low, high] == pytest.approx(sorted(of_subject), abs=1e-5)
        change = summary["change"][name][0]
        assert change == pytest.approx(
            mean - math.fsum(run["figures"][name][i] for run in before for i in range(4)) / 8, abs=1e-5
        )
