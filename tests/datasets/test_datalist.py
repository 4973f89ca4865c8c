"""MONAI's usual lists are read, and what is wrong with one is named: file, split, entry, key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monai_calib.datasets import load_datalist


def folder_with(tmp_path: Path, content: Any) -> Path:
    for name in ("a/scan.nii.gz", "b/scan.nii.gz", "t2.nii.gz", "seg.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    (tmp_path / "datalist.json").write_bytes(raw)
    return tmp_path


def test_entries_without_case_are_named_by_file_and_folder(tmp_path: Path) -> None:
    entries = [{"image": f"{place}/scan.nii.gz", "label": "seg.nii.gz"} for place in "ab"]
    cases = load_datalist(folder_with(tmp_path, {"training": entries}), "training")
    assert [case["case"] for case in cases] == ["a_scan", "b_scan"]


def test_channels_subjects_numbers_and_absolute_paths(tmp_path: Path) -> None:
    entry = {"image": ["a/scan.nii.gz", str(tmp_path / "t2.nii.gz")], "label": "seg.nii.gz", "subject": 7, "case": 12}
    [case] = load_datalist(folder_with(tmp_path, {"validation": [entry]}), "validation")
    assert case["image"] == [str(tmp_path / "a/scan.nii.gz"), str(tmp_path / "t2.nii.gz")]
    assert (case["case"], case["subject"]) == ("12", "7")


def test_a_list_of_labels_is_one_case_per_rater_of_one_subject(tmp_path: Path) -> None:
    seg, t2 = "seg.nii.gz", "t2.nii.gz"
    entry = {"image": "a/scan.nii.gz", "label": [seg, t2], "raters": ["Ann", "Ben"]}
    folder = folder_with(tmp_path, {"training": [entry, {"image": t2, "label": [t2, seg], "subject": "7"}]})
    cases = [(case["case"], case["subject"], case["label"]) for case in load_datalist(folder, "training")]
    assert cases == [
        ("scan_Ann", "scan", str(folder / seg)),
        ("scan_Ben", "scan", str(folder / t2)),
        ("t2_1", "7", str(folder / t2)),
        ("t2_2", "7", str(folder / seg)),
    ]


def test_paths_alone_are_images_without_labels(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"training": [], "test": ["a/scan.nii.gz"]})
    assert load_datalist(folder, "test", needs_label=False) == [
        {"image": str(folder / "a/scan.nii.gz"), "case": "scan"}
    ]
    with pytest.raises(ValueError, match=r"datalist\.json: test, entry 0: expected .*without a label"):
        load_datalist(folder, "test")


GOOD = {"image": "a/scan.nii.gz", "label": "seg.nii.gz"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([GOOD], r"expected an object with the lists"),
        (None, r"expected an object"),
        (b"\xe4", r"cannot be read as JSON"),
        (b"[" * 100_000, r"nested too deeply"),
        ({"test": [GOOD]}, r"lists no cases for 'training'.*test \(1\)"),
        ({"training": [GOOD, {"label": "seg.nii.gz"}]}, r"training, entry 1, 'image': expected a path, got nothing"),
        ({"training": [{**GOOD, "label": 3}]}, r"training, entry 0, 'label': expected a path, got 3"),
        ({"training": [{**GOOD, "label": []}]}, r"'label': expected a path, got a list of 0"),
        ({"training": [{**GOOD, "label": ["seg.nii.gz", 3]}]}, r"'label'\[1\]: expected a path, got 3"),
        (
            {"training": [{**GOOD, "label": ["seg.nii.gz"] * 2, "raters": ["a"]}]},
            r"'raters': expected 2 different names",
        ),
        (
            {"training": [{**GOOD, "label": ["seg.nii.gz"] * 2, "raters": ["a", "a"]}]},
            r"'raters': expected 2 different",
        ),
        ({"training": [{**GOOD, "image": ["a/scan.nii.gz", None]}]}, r"'image'\[1\]: expected a path, got nothing"),
        ({"training": [7]}, r"training, entry 0: expected"),
        ({"training": [{**GOOD, "case": ["x"]}]}, r"entry 0, 'case': expected a name"),
        ({"training": [{**GOOD, "case": "x"}] * 2}, r"'case': expected a name of its own for each entry, got x"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: Any, told: str) -> None:
    with pytest.raises(ValueError, match=rf"datalist\.json.*{told}"):
        load_datalist(folder_with(tmp_path, content), "training")


def test_a_missing_file_is_named_with_its_entry(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"training": [GOOD, {**GOOD, "image": "no.nii.gz"}]})
    with pytest.raises(FileNotFoundError, match=r"training, entry 1, 'image': names 'no\.nii\.gz', which is missing"):
        load_datalist(folder, "training")


def test_the_labels_of_all_raters_can_stay_together(tmp_path: Path) -> None:
    seg, t2 = "seg.nii.gz", "t2.nii.gz"
    entries = [
        {"image": "a/scan.nii.gz", "label": [seg, t2], "raters": ["Ann", "Ben"], "subject": "7"},
        {"image": "b/scan.nii.gz", "label": [seg]},
        {"image": t2, "label": seg},
    ]
    folder = folder_with(tmp_path, {"training": entries})
    cases = load_datalist(folder, "training", rater_labels="mean")
    assert [(case["case"], case["label"]) for case in cases] == [
        ("a_scan", [str(folder / seg), str(folder / t2)]),
        ("b_scan", str(folder / seg)),
        ("t2", str(folder / seg)),
    ]
    assert cases[0]["subject"] == "7"
    with pytest.raises(ValueError, match="rater_labels: expected one of sample, mean, got 'both'"):
        load_datalist(folder, "training", rater_labels="both")
