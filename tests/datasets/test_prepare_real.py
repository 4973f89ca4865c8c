"""Real data in the layouts they came in: 2D pictures with palettes, ten raters, Decathlon, and nnU-Net's layout."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from own_data import entries, voxels
from PIL import Image

from monai_calib.datasets import load_datalist
from monai_calib.datasets.datalist import SPLITS
from monai_calib.datasets.prepare import prepare
from monai_calib.transforms import LoadCased

REAL = Path(os.environ.get("MONAI_CALIB_DATA", Path(__file__).resolve().parents[3] / "shared/data"))


def needs(folder: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (REAL / folder).is_dir(), reason=f"needs {folder} in MONAI_CALIB_DATA")


@pytest.mark.real_data
@pytest.mark.slow
@needs("Task04_Hippocampus")
def test_the_hippocampus_is_split_by_its_own_rule(tmp_path: Path) -> None:
    prepare(REAL / "Task04_Hippocampus", tmp_path / "out")
    listed = entries(tmp_path / "out")
    assert len(listed) == 197
    where: dict[int, set[str]] = {}
    for name, entry in listed.items():
        subject = (int(name.removeprefix("hippocampus_")) + 1) // 2
        assert entry["subject"] == str(subject)
        where.setdefault(subject, set()).add(entry["split"])
    assert len(where) == 130
    assert all(len(splits) == 1 for splits in where.values())
    case = load_datalist(tmp_path / "out", "test")[0]
    assert sorted(LoadCased(("image", "label"), 3)(case)["label"].unique().tolist()) == [0, 1, 2]


@pytest.mark.real_data
@pytest.mark.slow
@needs("usgra_seg")
def test_ultrasound_pictures_keep_the_indices_of_their_palettes(tmp_path: Path) -> None:
    text = prepare(REAL / "usgra_seg", tmp_path / "out", block=8, labels=["nerve=1", "vessel=2"])
    assert "are read as grey" in text
    listed = entries(tmp_path / "out")
    assert len(listed) == 204
    for name in sorted(listed)[::17]:
        stored = voxels(tmp_path / "out", listed[name]["label"])[..., 0].T
        assert np.array_equal(stored, np.asarray(Image.open(REAL / f"usgra_seg/masks/{name}.png")))
    for split in SPLITS:
        case = load_datalist(tmp_path / "out", split)[0]
        loaded = LoadCased(("image", "label"), 3)(case)
        assert loaded["image"].shape == loaded["label"].shape


@pytest.mark.real_data
@pytest.mark.slow
@needs("bubil")
def test_ten_raters_are_ten_labels_of_a_picture(tmp_path: Path) -> None:
    few = [f"set1_{i:02d}" for i in range(1, 36)] + [f"set2a_{i:02d}" for i in range(13, 36)]
    there = {path.stem for path in (REAL / "bubil/images").iterdir()}
    pattern = "raters/{rater}/{case}.png"
    prepare(REAL / "bubil", tmp_path / "out", raters=pattern, labels=["cell=1"], exclude=sorted(there & set(few)))
    listed = entries(tmp_path / "out")
    assert set(listed) == there - set(few)
    entry = listed["set2a_03"]
    assert len(entry["label"]) == len(set(entry["raters"])) == 10
    for rater, named in zip(entry["raters"], entry["label"], strict=True):
        mask = np.asarray(Image.open(REAL / f"bubil/raters/{rater}/set2a_03.png"))
        assert np.array_equal(voxels(tmp_path / "out", named)[..., 0].T, mask)
    assert len(load_datalist(tmp_path / "out", "test")) == 10 * sum(e["split"] == "test" for e in listed.values())


@pytest.mark.real_data
@pytest.mark.slow
@needs("ACDC/training")
def test_the_heart_in_the_layout_of_nnunet_stays_in_place(tmp_path: Path) -> None:
    source = tmp_path / "nnUNet_raw/Dataset027_ACDC"
    for folder in ("imagesTr", "labelsTr"):
        (source / folder).mkdir(parents=True)
    for patient in sorted((REAL / "ACDC/training").iterdir())[:20]:
        for label in patient.glob("*_gt.nii.gz"):
            name = label.name.removesuffix("_gt.nii.gz")
            (source / f"imagesTr/{name}_0000.nii.gz").symlink_to(label.with_name(f"{name}.nii.gz").resolve())
            (source / f"labelsTr/{name}.nii.gz").symlink_to(label.resolve())
    labels = {"background": 0, "RV": 1, "MLV": 2, "LVC": 3}
    described = {"channel_names": {"0": "cineMRI"}, "labels": labels, "file_ending": ".nii.gz"}
    (source / "dataset.json").write_text(json.dumps(described))
    prepare(source, tmp_path / "out")
    listed = entries(tmp_path / "out")
    assert len(listed) == 40
    assert {entry["subject"] for entry in listed.values()} == {name.split("_")[0] for name in listed}
    assert not (tmp_path / "out/imagesTr").exists()
    case = load_datalist(tmp_path / "out", "validation")[0]
    assert sorted(LoadCased(("image", "label"), 4)(case)["label"].unique().tolist()) == [0, 1, 2, 3]
