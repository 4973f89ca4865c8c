"""The first screen says what is computed anew here from the evaluated folders, and ships what validation chose."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_runs import write_run
from test_page import Page

from monai_calib.report import write_report
from monai_calib.report.comparison import Comparison, compare
from monai_calib.report.runs import read_runs
from monai_calib.report.shipping import Shipped, shipped_of
from monai_calib.report.verdict import Verdict, mark_of, verdict_of

TOLD = {"in_words": "a number", "fitted_on": "validation", "status": "converged", "message": "", "region": "all",
        "cases": 2, "voxels": 10, "passes": 1}  # fmt: skip


def _settings(loss: str = "ce", seed: int = 1, split: str = "test") -> dict[str, Any]:
    return {"bundle": "b", "loss_name": loss, "seed": seed, "split": split}


def _corrected(method: str, **record: Any) -> dict[str, Any]:
    return _settings() | {"posthoc": method, "correction": {"method": method, **TOLD, **record}}


def _of(folder: Path) -> tuple[Comparison, Shipped]:
    runs = read_runs([folder])
    comparison = compare([run for run in runs if run.split == "test"])[0]
    return comparison, shipped_of(comparison, runs, [folder], folder / "page.html")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An over-confident training, and a correction that is right on average; it ships."""
    root = tmp_path_factory.mktemp("first") / "runs"
    run = root / "ce"
    write_run(run, _settings(), range(8), noise=3, temperature=0.4)
    held = {"held_out": {"none": {"nll": 0.5}, "temperature": {"nll": 0.3}}, "asked": "temperature"}
    write_run(run / "posthoc" / "temperature", _corrected("temperature", **held), range(8), noise=3)
    for place, name in ((run, "model.pt"), (run / "posthoc" / "temperature", "model_calibrated.ts")):
        (place / "models").mkdir()
        (place / "models" / name).write_bytes(b"weights")
    return root


@pytest.fixture(scope="module")
def verdict(folder: Path) -> Verdict:
    comparison, shipped = _of(folder)
    return verdict_of(comparison, shipped, ())


def _content(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "eval" / "calibration.json").read_text())
    return content


def _by_case(folder: Path, name: str) -> dict[str, float]:
    cases = _content(folder)["cases"]
    return {case["case"]: float(np.mean(case["metrics"][name])) for case in cases}


def test_the_correction_with_the_lower_held_out_nll_ships_with_its_file(verdict: Verdict) -> None:
    assert verdict.shipped.method is not None
    assert verdict.shipped.method.label == "ce + temperature"
    assert verdict.shipped.file == "ce/posthoc/temperature/models/model_calibrated.ts", "from the page's folder"


def test_its_table_holds_the_means_of_the_evaluated_folders(folder: Path, verdict: Verdict) -> None:
    names = {
        "ECE, whole volume": "ece_all_15bins",
        "ECE, within 2 mm of a boundary": "ece_boundary2mm_15bins",
        "NLL, whole volume": "nll_all",
        "Volume error": "expected_volume_error",
    }
    heads = [head for head, _ in verdict.columns]
    assert heads == ["DSC", *names]
    places = {"ce": folder / "ce", "ce + temperature": folder / "ce" / "posthoc" / "temperature"}
    for label, chosen, marks in verdict.rows:
        assert chosen == (label == "ce + temperature")
        for head, name in names.items():
            mean = np.mean(list(_by_case(places[label], name).values()))
            assert marks[heads.index(head)].estimate.interval.value == pytest.approx(mean, rel=1e-6)


def test_marks_are_the_bootstrap_interval_of_the_paired_difference(folder: Path, verdict: Verdict) -> None:
    """Each figure's change drawn anew, subject by subject (each case is one)."""
    (_, _, before), (_, _, after) = verdict.rows
    assert [mark.verdict for mark in before] == [""] * 5
    draws = np.random.default_rng(5).integers(0, 8, (20000, 8))
    for (head, column), mark in zip(verdict.columns, after, strict=True):
        name = "mean_dice" if head == "DSC" else column.metric.name
        old, new = (_by_case(place, name) for place in (folder / "ce", folder / "ce/posthoc/temperature"))
        change = np.array([new[case] - old[case] for case in old])
        if not change.any():
            assert mark.verdict == "equal", head
            continue
        low, high = np.quantile(change[draws].mean(axis=1), [0.025, 0.975])
        sign = 1 if column.lower_is_better else -1
        low, high = sorted((sign * low, sign * high))
        expected = "better" if high < 0 else "worse" if low > 0 else "open"
        assert mark.verdict == expected, head
    assert {mark.verdict for mark in after} == {"equal", "better", "worse"}, "a test of all signs"


def test_where_it_says_90_percent_is_the_pooled_bin_with_its_interval(folder: Path, verdict: Verdict) -> None:
    """Of the exact histograms: bin (13/15, 14/15] of the top label, whole volume, over cases drawn anew."""
    (run,) = [run for run in read_runs([folder]) if "posthoc" in run.settings]
    table = run.bins["all", 15][:, -1, :, 13]
    count, hits, confidence = table.T
    draws = np.random.default_rng(7).integers(0, 8, (20000, 8))
    low, high = np.quantile(hits[draws].sum(axis=1) / count[draws].sum(axis=1), [0.025, 0.975])
    numbers = re.fullmatch(
        r"Where it says (\d+) %, it is right in (\d+)–(\d+) % \(whole volume, confidence 87 to 93 %\)\.", verdict.trust
    )
    assert numbers is not None, verdict.trust
    said, *told = (int(number) for number in numbers.groups())
    assert said == round(100 * confidence.sum() / count.sum())
    assert told == pytest.approx([100 * low, 100 * high], abs=1.0), "other draws, and whole percent"


def test_what_got_worse_is_told_with_both_figures(folder: Path, tmp_path: Path) -> None:
    """Sharpening what was right makes it worse in every region that the protocol has."""
    write_run(tmp_path / "ce", _settings(), range(8), noise=3)
    choice = {"chosen": "sharper", "why": "made for this", "subjects": 4}
    settings = _corrected("auto", choice=choice, guards=["ECE rises"])
    write_run(tmp_path / "ce" / "posthoc" / "auto", settings, range(8), noise=3, temperature=0.2)
    comparison, shipped = _of(tmp_path)
    assert shipped.why == ("Correction chosen on held-out validation cases: sharper, made for this.",)
    assert shipped.file == "", "there is no network"
    beware = verdict_of(comparison, shipped, ()).beware
    worse = next(sentence for sentence in beware if sentence.startswith("Worse than as trained: "))
    old, new = (np.mean(list(_by_case(tmp_path / place, "nll_all").values())) for place in ("ce", "ce/posthoc/auto"))
    assert f"NLL (whole volume) {old:.3f} → {new:.3f}" in worse
    assert "ECE (true foreground)" in worse, "regions that the table does not have"
    assert "On cases held out of the fit: ECE rises." in beware
    assert any(sentence.startswith("Over-confident: where it says") for sentence in beware)
    assert any(sentence.startswith("Few subjects: 8.") for sentence in beware)


def test_under_confidence_is_told(tmp_path: Path) -> None:
    write_run(tmp_path / "ce", _settings(), range(8), noise=0.2, temperature=2.0)
    comparison, shipped = _of(tmp_path)
    beware = verdict_of(comparison, shipped, ()).beware
    assert any(sentence.startswith("Under-confident: where it says") for sentence in beware)


def test_a_figure_that_moves_in_no_case_is_equal(folder: Path) -> None:
    comparison, _ = _of(folder)
    plain, corrected = comparison.methods
    column = comparison.columns_of_kind("dice")[0]
    twin = corrected.__class__("twin", plain.runs, (), corrected.place)
    assert mark_of(comparison, twin, column).verdict == "equal"


@pytest.mark.parametrize(
    ("record", "ships"),
    [
        ({"held_out": {"none": {"nll": 0.2}, "temperature": {"nll": 0.3}}}, "ce"),
        ({"held_out": {"none": {"nll": 0.5}, "temperature": {"nll": 0.3}}, "guards": ["ECE rises"]}, "ce"),
        ({"held_out": {"none": {"nll": 0.5}, "temperature": {"nll": 0.3}}}, "ce + temperature"),
        ({"held_out": {"none": {"nll": 0.5}, "temperature": {"nll": 0.3}}, "fitted_on": "test"}, "ce"),
        ({}, "ce"),
    ],
)
def test_a_correction_ships_only_if_it_helps_held_out_cases(record: dict[str, Any], ships: str, tmp_path: Path) -> None:
    """Whatever the test figures say: here they are best for the correction."""
    write_run(tmp_path / "ce", _settings(), [0, 1], noise=3, temperature=0.3, protocols=["by_region"])
    settings = _corrected("temperature", **record)
    write_run(tmp_path / "ce/posthoc/t", settings, [0, 1], noise=3, protocols=["by_region"])
    method = _of(tmp_path)[1].method
    assert method is not None
    assert method.label == ships


def test_auto_without_a_correction_says_that_it_is_the_network_as_trained(tmp_path: Path) -> None:
    settings = _corrected("auto", choice={"chosen": "none", "why": "the best"})
    write_run(tmp_path / "posthoc" / "auto", settings, [0], protocols=["by_region"])
    assert _of(tmp_path)[1].why == ("The network as trained: held-out validation cases chose no correction.",)


def test_of_several_trainings_validation_chooses_and_without_it_nothing(tmp_path: Path) -> None:
    """The one that is better on test is worse on validation."""
    for loss, on_test, on_validation in (("ce", 1.0, 0.2), ("nacl", 0.2, 1.0)):
        write_run(tmp_path / loss, _settings(loss), [0, 1], noise=3, temperature=on_test, protocols=["by_region"])
        held = _settings(loss, split="validation")
        write_run(
            tmp_path / loss / "validation", held, [2, 3], noise=3, temperature=on_validation, protocols=["by_region"]
        )
    shipped = _of(tmp_path)[1]
    assert shipped.method is not None
    why = "Of 2 trainings, each as it would ship, this one has the lowest NLL on held-out validation cases."
    assert (shipped.method.label, shipped.why[0]) == ("nacl", why)
    for path in (tmp_path / "ce" / "validation" / "eval").iterdir():
        if path.is_file():
            path.unlink()
    shipped = _of(tmp_path)[1]
    assert shipped.method is None
    assert "a choice by the figures below would be one on the test cases" in shipped.why[0]
    html = write_report([tmp_path], tmp_path / "report.html").read_text()
    assert '<span class="flag">ship</span>' not in html


@pytest.mark.parametrize(
    ("nacl_corrected", "fitted_on", "ships"),
    [(0.1, "validation", "nacl"), (0.2, "validation", "ce"), (0.2, "other cases", "nacl")],
)
def test_of_several_trainings_the_one_that_is_best_with_its_correction_ships(
    nacl_corrected: float, fitted_on: str, ships: str, tmp_path: Path
) -> None:
    """As trained, ``nacl`` is better on validation; with corrections the order turns, or not, by its held-out cases."""
    for loss, before, after, temperature in (("ce", 0.5, 0.15, 0.2), ("nacl", 0.3, nacl_corrected, 1.0)):
        write_run(tmp_path / loss, _settings(loss), [0, 1], noise=3, protocols=["by_region"])
        held = _settings(loss, split="validation")
        on = tmp_path / loss / "validation"
        write_run(on, held, [2, 3], noise=3, temperature=temperature, protocols=["by_region"])
        figures = {"none": {"nll": before}, "temperature": {"nll": after}}
        record = {"choice": {"chosen": "temperature", "why": "the best", "candidates": figures}, "fitted_on": fitted_on}
        write_run(
            tmp_path / loss / "posthoc/auto",
            _corrected("temperature", **record) | {"loss_name": loss, "posthoc": "auto"},
            [0, 1],
            noise=3,
            protocols=["by_region"],
        )
    shipped = _of(tmp_path)[1]
    assert shipped.method is not None
    assert shipped.method.label == f"{ships} + auto"


def test_of_several_seeds_the_best_on_validation_ships(tmp_path: Path) -> None:
    for seed, value in ((1, 0.7), (2, 0.9), (3, 0.8)):
        run = write_run(tmp_path / str(seed), _settings(seed=seed), [0, 1], protocols=["by_region"])
        (run / "models").mkdir()
        record = {"settings": {}, "metric": "mean_dice", "best_value": value}
        (run / "models" / "training.json").write_text(json.dumps(record))
        (run / "models" / "model.pt").write_bytes(b"weights")
    shipped = _of(tmp_path)[1]
    assert shipped.run is not None
    assert (shipped.run.seed, shipped.file) == ("2", "2/models/model.pt")
    assert "Seed 2, the best of 3 on validation." in shipped.why


def test_the_page_shows_it_before_all_else_and_no_path_of_the_machine(folder: Path, tmp_path: Path) -> None:
    page = Page(write_report([folder], tmp_path / "report.html"))
    text = " ".join(page.text.split())
    assert text.index("Ship") < text.index("Trust") < text.index("Beware") < text.index("Contents")
    assert "runs/ce/posthoc/temperature/models/model_calibrated.ts" in text, "from the named folder"
    assert str(tmp_path.parent) not in text
    first = page.figures[0]["plot"]["data"]
    assert {trace.get("name") for trace in first} == {"perfect", "ce", "ce + temperature"}


def test_the_copy_that_run_made_beside_the_page_is_named(folder: Path, tmp_path: Path) -> None:
    inside = "ce/posthoc/temperature/models/model_calibrated.ts"
    about = {"format": "monai_calib/shipped/1", "from": f"runs/{inside}"}
    beside = folder.parent
    (beside / "model.ts").write_bytes(b"weights")
    (beside / "model.json").write_text(json.dumps(about))
    runs = read_runs([folder])
    (comparison,) = compare(runs)
    assert shipped_of(comparison, runs, [folder], beside / "report.html").file == "model.ts"
    (beside / "model.json").write_text(json.dumps(about | {"from": "runs/another.ts"}))
    assert shipped_of(comparison, runs, [folder], beside / "report.html").file == f"runs/{inside}"


def test_the_file_of_a_calibration_is_named_for_the_correction_it_was_written_for(calibrated: Path) -> None:
    """Isotonic regression was fitted beside the temperature, and has no file."""
    runs = read_runs([calibrated])
    (comparison,) = compare(runs)
    files = {}
    for method in comparison.methods:
        alone = replace(comparison, methods=(method,))
        files[method.label] = shipped_of(alone, runs, [calibrated], calibrated.parent / "elsewhere" / "page.html").file
    assert files["dice_ce + temperature"] == f"{calibrated.name}/models/model_calibrated.pt"
    assert files["dice_ce + isotonic"] == ""


def test_every_method_of_a_comparison_without_a_choice_is_marked_against_its_own_training(tmp_path: Path) -> None:
    """Five trainings, one corrected: six rows, five without a mark, and no diagram of so many."""
    for number in range(5):
        noise = 1 + number / 4
        write_run(tmp_path / str(number), _settings(f"loss{number}"), [0, 1, 2], noise, protocols=["by_region"])
    corrected = _settings("loss4") | {"posthoc": "temperature"}
    write_run(tmp_path / "4" / "posthoc" / "t", corrected, [0, 1, 2], 2.0, 0.5, protocols=["by_region"])
    comparison, shipped = _of(tmp_path)
    verdict = verdict_of(comparison, shipped, ())
    assert shipped.method is None
    assert len(verdict.rows) == 6
    assert not any(chosen for _, chosen, _ in verdict.rows)
    assert [label for label, _, marks in verdict.rows if any(mark.verdict for mark in marks)] == ["loss4 + temperature"]
    assert (verdict.figure, verdict.trust) == (None, "")


def test_other_parts_and_tests_without_hope_are_told(tmp_path: Path) -> None:
    """Three subjects cannot reach 5 %; another bundle's runs are another part, with a box of its own."""
    write_run(tmp_path / "ce", _settings(), [0, 1, 2], noise=3, temperature=0.4)
    write_run(tmp_path / "ce" / "posthoc" / "t", _corrected("temperature"), [0, 1, 2], noise=3)
    write_run(tmp_path / "other", _settings() | {"bundle": "other"}, [0, 1])
    html = write_report([tmp_path], tmp_path / "report.html").read_text()
    assert html.count("<h2>Ship</h2>") == 2
    told = [box[: box.index("</ul>")] for box in html.split("<h2>Beware</h2>")[1:]]
    assert "of which this box says nothing: other." in told[0]
    assert "With 3 subjects and 1 pair no test can tell methods apart: the smallest p possible is 0.25." in told[0]
    assert "of which this box says nothing: b." in told[1]
    assert "no test can tell" not in told[1], "there is no pair"
