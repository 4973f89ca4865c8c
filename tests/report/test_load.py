"""The long table of evaluated folders, against the files themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_calib.report import load
from monai_calib.report.runs import RunError

pd = pytest.importorskip("pandas")


def test_every_number_of_every_file_is_a_row(run_folders: list[Path]) -> None:
    table = load(run_folders)
    expected = 0
    for folder in run_folders:
        content = json.loads((folder / "eval" / "calibration.json").read_text())
        for case in content["cases"]:
            expected += sum(len(v) if isinstance(v, list) else 1 for v in case["metrics"].values())
    assert len(table) == expected
    assert not table.duplicated(["method", "seed", "case", "name", "class"]).any()


def test_rows_say_what_they_are(run_folders: list[Path]) -> None:
    table = load(run_folders[0])
    content = json.loads((run_folders[0] / "eval" / "calibration.json").read_text())
    case = content["cases"][0]
    mine = table[table.case == case["case"]].set_index(["name", "class"]).value
    assert mine["mean_dice", "anterior"] == case["metrics"]["mean_dice"][0]
    whole = table[(table.metric == "ece") & (table.region == "all") & (table.case == case["case"])]
    assert whole.value.tolist() == [case["metrics"]["ece_all_15bins"]]
    assert whole.bins.tolist() == [15]
    assert set(table.split) == {"test"}
    assert set(table.correction) == {""}
    assert table[table.metric == "hd95"].region.isna().all()
    by_case = table[table.metric == "nll"].groupby("name").value.mean()
    assert by_case["nll_all"] == pytest.approx(content["summary"]["nll_all_macro"])


def test_corrections_are_told_apart(calibrated: Path) -> None:
    table = load([calibrated])
    assert set(table.correction) == {"", "temperature", "isotonic"}
    assert len(table.groupby("method")) == 3


def test_a_folder_without_evaluation_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=str(tmp_path)):
        load(tmp_path)
