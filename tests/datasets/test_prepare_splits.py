"""Own data are split by patient: folds, a list of test cases, neighbouring numbers, small sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_data import (
    entries,
    nnunet,
    picture_folders,
    subjects_of,
)

from monai_calib.datasets import load_datalist
from monai_calib.datasets.datalist import SPLITS
from monai_calib.datasets.dataset import SourceError
from monai_calib.datasets.prepare import prepare


def test_folds_part_what_is_not_for_the_test(tmp_path: Path) -> None:
    source = nnunet(tmp_path / "mine", [f"p{i}_{side}" for i in range(12) for side in "lr"])
    prepare(source, tmp_path / "out", patients=r"(p\d+)_", folds=4, fractions=(0.7, 0.1, 0.2))
    folds = [entries(tmp_path / "out", f"fold_{fold}/datalist.json") for fold in range(4)]
    tests = [subjects_of(fold, "test") for fold in folds]
    assert all(other == tests[0] and other for other in tests)
    held = [subjects_of(fold, "validation") for fold in folds]
    assert sorted(subject for part in held for subject in part) == sorted(subjects_of(folds[0], "training") | held[0])
    assert all(fold.keys() == folds[0].keys() for fold in folds)
    for fold, listed in enumerate(folds):
        assert not subjects_of(listed, "training") & held[fold]
        assert len(load_datalist(tmp_path / f"out/fold_{fold}", "validation")) == 2 * len(held[fold])
    assert entries(tmp_path / "out") == folds[0]


def test_folds_of_pictures_point_to_files_that_are_there(tmp_path: Path) -> None:
    prepare(picture_folders(tmp_path / "mine", 12), tmp_path / "out", folds=3)
    cases = [case for split in SPLITS for case in load_datalist(tmp_path / "out/fold_2", split)]
    images = {case["case"]: Path(case["image"]).resolve() for case in cases}
    assert images == {f"{i:04d}": (tmp_path / f"out/imagesTr/{i:04d}.nii.gz").resolve() for i in range(12)}


def test_a_list_of_test_cases_is_kept_to(tmp_path: Path) -> None:
    source = picture_folders(tmp_path / "mine", 24)
    (tmp_path / "test.txt").write_text("# held out\n0003\n0004.png\n\n0011\n0012\n0013\n0020\n")
    prepare(source, tmp_path / "out", test=tmp_path / "test.txt")
    listed = entries(tmp_path / "out")
    assert {name for name, entry in listed.items() if entry["split"] == "test"} == {
        *("0003", "0004", "0011", "0012", "0013", "0020")
    }


def test_neighbouring_numbers_stay_together(tmp_path: Path) -> None:
    prepare(picture_folders(tmp_path / "mine", 40), tmp_path / "out", block=4)
    splits: dict[int, set[str]] = {}
    for name, entry in entries(tmp_path / "out").items():
        splits.setdefault(int(name) // 4, set()).add(entry["split"])
    assert len(splits) == 10
    assert all(len(found) == 1 for found in splits.values())


def test_small_sets_have_a_subject_in_every_split_and_are_warned_of(tmp_path: Path) -> None:
    text = prepare(picture_folders(tmp_path / "mine", 3), tmp_path / "out")
    assert [len(subjects_of(entries(tmp_path / "out"), s)) for s in ("training", "validation", "test")] == [1, 1, 1]
    assert "1 test subject: too few" in text
    assert "each case is taken as a patient" in text
    with pytest.raises(SourceError, match="2 subjects: expected at least 3"):
        prepare(picture_folders(tmp_path / "few", 2), tmp_path / "out2")
