"""Hyper-parameters: chosen by validation alone, for whole trainings, and not at all where validation is missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from synthetic_runs import write_run

from monai_calib.report.choice import choose_on_validation, read_choices
from monai_calib.report.comparison import compare
from monai_calib.report.runs import Run, RunError, read_runs

# Noise of the networks: validation prefers margin 5, though the test is made to prefer margin 10.
VALIDATION = {5: 1.0, 10: 1.2}
TEST = {5: 2.0, 10: 0.2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two margins, evaluated on test and validation, one of them corrected afterwards; and CE without a choice."""
    root = tmp_path_factory.mktemp("margins")
    for margin in (5, 10):
        run = {"bundle": "b", "loss_name": "mbls", "loss_args": {"margin": margin}, "network_name": "unet", "seed": 0}
        place = root / f"mbls_{margin}"
        write_run(place, run | {"split": "test"}, [0, 1], noise=TEST[margin])
        write_run(place / "validation", run | {"split": "validation"}, [2, 3], noise=VALIDATION[margin])
        corrected = run | {"split": "test", "posthoc": "temperature"}
        write_run(place / "posthoc" / "temperature", corrected, [0, 1], temperature=0.8)
    write_run(
        root / "ce", {"bundle": "b", "loss_name": "ce", "network_name": "unet", "seed": 0, "split": "test"}, [0, 1]
    )
    return root


@pytest.fixture(scope="module")
def runs(folder: Path) -> list[Run]:
    return read_runs([folder])


def test_everything_below_a_folder_is_found(runs: list[Run]) -> None:
    assert len(runs) == 7
    assert sorted(run.split for run in runs) == ["test"] * 5 + ["validation"] * 2
    assert [run.settings["posthoc"] for run in runs if "posthoc" in run.settings] == ["temperature"] * 2


def test_validation_chooses_even_against_the_test(runs: list[Run]) -> None:
    kept, (choice,) = choose_on_validation(runs)
    assert {run.settings.get("loss_args", {}).get("margin") for run in kept} == {None, 5}
    assert {run.split for run in kept} == {"test"}
    assert [(variant.settings, variant.chosen) for variant in choice.variants] == [
        ("margin 10", False),
        ("margin 5", True),
    ]
    by_hand = [np.mean(run.values["nll_all"]) for run in runs if run.split == "validation"]
    assert [variant.value for variant in choice.variants] == pytest.approx(by_hand)


def test_corrections_go_with_their_training_and_take_its_colour(runs: list[Run]) -> None:
    kept, _ = choose_on_validation(runs)
    (comparison,) = compare(kept)
    assert [(m.label, m.place) for m in comparison.methods] == [
        ("ce", (0, 0)),
        ("mbls", (1, 0)),
        ("mbls + temperature", (1, 1)),
    ]


def test_without_validation_nothing_is_chosen(runs: list[Run]) -> None:
    incomplete = [run for run in runs if not (run.split == "validation" and run.settings["loss_args"]["margin"] == 5)]
    kept, (choice,) = choose_on_validation(incomplete)
    assert len(kept) == 5
    assert choice.criterion == ""
    assert not any(variant.chosen for variant in choice.variants)


def test_only_seeds_of_all_variants_count(folder: Path, tmp_path: Path) -> None:
    lucky = {"bundle": "b", "loss_name": "mbls", "loss_args": {"margin": 10}, "network_name": "unet", "seed": 1}
    write_run(tmp_path / "validation", lucky | {"split": "validation"}, [2, 3], noise=0.05)
    runs = read_runs([folder, tmp_path])
    values = {
        margin: [
            np.mean(r.values["nll_all"]) for r in runs if r.split == "validation" and r.settings["loss_args"] == args
        ]
        for margin, args in ((m, {"margin": m}) for m in (5, 10))
    }
    assert np.mean(values[10]) < np.mean(values[5]), "its further seed would make the other look better"
    _, (choice,) = choose_on_validation(runs)
    assert next(variant.settings for variant in choice.variants if variant.chosen) == "margin 5"


def test_validation_runs_alone_are_reported_as_they_are(runs: list[Run]) -> None:
    alone = [run for run in runs if run.split == "validation"]
    assert choose_on_validation(alone) == (alone, [])


def test_one_seed_may_not_count_twice(folder: Path) -> None:
    runs = read_runs([folder / "ce"])
    with pytest.raises(RunError, match="count twice"):
        compare(runs * 2)


def test_choices_of_the_benchmark_are_told(tmp_path: Path) -> None:
    made = {"group": "b/unet", "family": "mbls", "by": "nll_all_macro", "seeds": [0, 1], "chosen": "mbls_margin=5"}
    values = {"mbls_margin=5": 0.1, "mbls_margin=10": None}
    path = tmp_path / "results.json"
    path.write_text(
        json.dumps({"format": "monai_calib/benchmark_results/1", "choices": [made | {"values": values}], "runs": []})
    )
    (choice,) = read_choices(path)
    assert [variant.chosen for variant in choice.variants] == [True, False]
    assert np.isnan(choice.variants[1].value)
    path.write_text("{}")
    with pytest.raises(RunError, match=r"results\.json"):
        read_choices(path)
