"""Reading run folders: what real handlers wrote comes back, and what is wrong is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_calib.report.runs import RunError, read_run, read_runs


def edited(source: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a run with its calibration.json changed."""
    shutil.copytree(source, target)
    path = target / "eval" / "calibration.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return target


def test_reads_what_the_handlers_wrote(run_folders: list[Path]) -> None:
    run = read_run(run_folders[0])
    assert run.class_names == ("background", "anterior", "posterior")
    assert run.cases == tuple(f"case_{number:03d}" for number in range(6))
    assert run.subjects == run.cases, "without subjects each case is its own"
    assert {protocol.name for protocol in run.protocols} == {"paper", "by_region"}
    for name, values in run.values.items():
        if f"{name}_macro" in run.summary:
            assert np.nanmean(values) == pytest.approx(run.summary[f"{name}_macro"]), name
    assert run.class_values["mean_dice"].shape == (6, 3)
    assert np.isnan(run.class_values["mean_dice"][:, 0]).all(), "background has no Dice here"
    preview = run.preview("case_000")
    assert preview is not None
    assert preview["label"].shape == (24, 28)
    assert run.preview("no_such_case") is None


def test_a_run_of_version_0_1_is_compared_with_one_of_today(run_folders: list[Path], tmp_path: Path) -> None:
    """Its protocol had another name, which is a loss's, and other descriptions."""

    def change(content: dict[str, Any]) -> None:
        content["protocols"]["recommended"] = content["protocols"].pop("by_region") | {"name": "recommended"}
        for protocol in content["protocols"].values():
            protocol["description"] = "The words of that time."

    assert read_run(edited(run_folders[0], tmp_path / "old", change)).protocols == read_run(run_folders[0]).protocols


def test_a_class_never_found_marks_the_run(run_folders: list[Path]) -> None:
    missed = {folder.name: read_run(folder).missed_classes() for folder in run_folders}
    assert missed.pop("ce_3") == ("posterior",)
    assert set(missed.values()) == {()}


def test_subjects_and_undefined_figures(run_folders: list[Path], tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for number, case in enumerate(content["cases"]):
            case["subject"] = str(number // 2)
        content["cases"][0]["metrics"]["ece_foreground_15bins"] = None

    run = read_run(edited(run_folders[0], tmp_path / "run", change))
    assert run.subjects == ("0", "0", "1", "1", "2", "2")
    assert np.isnan(run.values["ece_foreground_15bins"]).tolist() == [True] + [False] * 5


def test_a_folder_named_twice_is_read_once(run_folders: list[Path]) -> None:
    assert len(read_runs([run_folders[0], run_folders[0] / ".." / run_folders[0].name])) == 1


def test_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    for read in (read_run, lambda folder: read_runs([folder])):
        with pytest.raises(RunError, match=r"eval.calibration\.json does not exist.*monai\.bundle run"):
            read(tmp_path)
    with pytest.raises(RunError, match="at least one run folder"):
        read_runs([])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{ half", "cannot be read as JSON"),
        ("[]", r"calibration\.json"),
        ('{"format": "monai_calib/calibration/1"}', "older monai_calib.*Evaluate the run again"),
        ('{"format": "monai_calib/evaluation/1"}', "Evaluate the run again"),
        ('{"format": "monai_calib/evaluation/1", "classes": 2, "cases": 3}', "Evaluate the run again"),
        ("\x00\xff", "cannot be read as JSON"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "calibration.json").write_text(text, encoding="latin-1")
    with pytest.raises(RunError, match=message) as caught:
        read_run(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_damaged_preview_is_named(run_folders: list[Path], tmp_path: Path) -> None:
    shutil.copytree(run_folders[0], tmp_path / "run")
    (tmp_path / "run" / "eval" / "previews" / "case_000.npz").write_bytes(b"no archive")
    with pytest.raises(RunError, match=r"case_000\.npz is not a preview"):
        read_run(tmp_path / "run").preview("case_000")
