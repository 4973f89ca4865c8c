"""Before and after a correction, from the folders that a real calibration left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic_runs import write_run
from test_page import Page

from monai_calib.report import write_report
from monai_calib.report.comparison import Comparison, compare
from monai_calib.report.corrections import corrections_of
from monai_calib.report.runs import read_runs


@pytest.fixture(scope="module")
def comparison(calibrated: Path) -> Comparison:
    (only,) = compare(read_runs([calibrated]))
    return only


@pytest.fixture(scope="module")
def path(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report([calibrated], tmp_path_factory.mktemp("page") / "report.html")


def test_one_comparison_of_before_and_after(comparison: Comparison) -> None:
    assert [method.label for method in comparison.methods] == ["dice_ce", "dice_ce + isotonic", "dice_ce + temperature"]
    assert {method.place[0] for method in comparison.methods} == {0}, "one training, one colour"


def test_the_page_says_what_was_fitted_on_what_and_that_it_flatters(path: Path, calibrated: Path) -> None:
    record = json.loads((calibrated / "models" / "calibration_parameters.json").read_text())
    text = " ".join(Page(path).text.split())
    assert f"temperature {1 / record['state']['weight'][0][0]:.4g}" in text
    assert f"{record['fit']['voxels']:,} voxels" in text
    assert "4 cases of validation" in text
    assert "Flattering." in text
    for figures in record["held_out"].values():
        assert f'data-value="{figures["nll"]:.6g}"' in path.read_text()


def _run(**correction: Any) -> dict[str, Any]:
    told = {"method": "temperature", "in_words": "temperature 2", "fitted_on": "validation", "status": "converged"}
    told |= {"message": "", "region": "all", "cases": 2, "voxels": 10, "passes": 1}
    return {"loss_name": "ce", "seed": 1, "split": "test", "posthoc": "temperature", "correction": told | correction}


def test_what_a_correction_makes_worse_stands_in_red_and_other_cases_do_not_flatter(tmp_path: Path) -> None:
    worse = ["ECE of the whole volume rises from 0.1 to 0.4"]
    write_run(tmp_path / "a", _run(guards=worse, asked="temperature"), [0, 1], protocols=["paper"])
    (item,) = corrections_of(compare(read_runs([tmp_path]))[0])
    assert item.worse == tuple(worse)
    assert not item.flattering
    html = write_report([tmp_path], tmp_path / "report.html").read_text()
    assert f'<span class="flag worse">{worse[0]}</span>' in html
    assert "Flattering." not in html


def test_auto_shows_every_candidate_and_why(tmp_path: Path) -> None:
    held = {"nll": 0.5, "ece": 0.1, "volume_error": None, "labels_changed": 0.0}
    choice = {
        "chosen": "none",
        "why": "the simplest within one standard error of <temperature>",
        "candidates": {"none": held, "temperature": held | {"nll": 0.4}},
        "guards": {"temperature": ["ECE rises"]},
        "dropped": {"vector": "6 numbers, 3 subjects"},
    }
    write_run(tmp_path / "a", _run(choice=choice, asked="auto"), [0, 1], protocols=["paper"])
    (item,) = corrections_of(compare(read_runs([tmp_path]))[0])
    assert [(c.name, c.note, c.chosen) for c in item.candidates] == [
        ("none", "", True),
        ("temperature", "ECE rises", False),
        ("vector", "6 numbers, 3 subjects", False),
    ]
    html = write_report([tmp_path], tmp_path / "report.html").read_text()
    assert "one standard error of &lt;temperature&gt;" in html


def test_seeds_with_corrections_of_their_own_are_one_method(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path / str(seed), _run(in_words=f"temperature {seed}") | {"seed": seed}, [0], protocols=["paper"])
    (only,) = compare(read_runs([tmp_path]))
    assert [method.label for method in only.methods] == ["ce + temperature"]
    assert [item.seed for item in corrections_of(only)] == ["1", "2"]


def test_every_column_of_a_sortable_table_has_its_button(path: Path) -> None:
    """The script gives each one a listener; a header without a button once stopped it, and no figure was drawn."""
    tables = [table for table in path.read_text().split("<table")[1:] if "sortable" in table[: table.index(">")]]
    assert any("Out because" in table for table in tables), "the candidates' table"
    for table in tables:
        heads = table[: table.index("</thead>")].split("<th ")[1:]
        assert all("<button" in head for head in heads), heads
