"""Own data come out as they went in, split by patient, from every layout; the loader of the bundles reads them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # its customary name
from own_data import (
    AFFINE,
    blocks,
    decathlon,
    entries,
    nnunet,
    noise,
    picture_folders,
    subjects_of,
    voxels,
    write_palette,
    write_picture,
    write_volume,
)

from monai_calib.__main__ import main
from monai_calib.datasets import load_datalist
from monai_calib.datasets.dataset import SourceError
from monai_calib.datasets.known import hippocampus_subject
from monai_calib.datasets.prepare import prepare
from monai_calib.transforms import LoadCased


def test_grey_pictures_and_masks_of_numbers(tmp_path: Path) -> None:
    source = picture_folders(tmp_path / "mine")
    prepare(source, tmp_path / "out", labels=["nerve=1", "vessel=2"])
    content = json.loads((tmp_path / "out/datalist.json").read_text())
    assert content["labels"] == {"0": "background", "1": "nerve", "2": "vessel"}
    assert (content["unit"], content["dimensions"], content["name"]) == ("px", 2, "mine")
    listed = entries(tmp_path / "out")
    assert len(listed) == 20
    for number in (0, 7, 19):
        entry = listed[f"{number:04d}"]
        # rows of a picture run down: the second axis of the volume
        assert np.array_equal(voxels(tmp_path / "out", entry["image"])[..., 0].T, noise(number, (12, 10)))
        assert np.array_equal(voxels(tmp_path / "out", entry["label"])[..., 0].T, blocks(number, (12, 10), (0, 1, 2)))


def test_the_loader_of_the_bundles_reads_what_was_written(tmp_path: Path) -> None:
    prepare(picture_folders(tmp_path / "mine"), tmp_path / "out", labels=["nerve=1", "vessel=2"])
    case = load_datalist(tmp_path / "out", "test")[0]
    loaded = LoadCased(keys=("image", "label"), num_classes=3)(case)
    assert loaded["image"].shape == loaded["label"].shape == (1, 10, 12, 1)
    assert sorted(loaded["label"].unique().tolist()) == [0, 1, 2]


def test_palette_masks_are_read_as_indices_and_mixed_pictures_as_grey(tmp_path: Path) -> None:
    source = picture_folders(tmp_path / "mine", 12)
    mask = blocks(3, (12, 10), (0, 1, 2))
    write_palette(source / "masks/0003.png", mask)
    colours = noise(99, (12, 10, 3))
    write_picture(source / "images/0004.png", colours)
    text = prepare(source, tmp_path / "out")
    listed = entries(tmp_path / "out")
    assert np.array_equal(voxels(tmp_path / "out", listed["0003"]["label"])[..., 0].T, mask)
    grey = voxels(tmp_path / "out", listed["0004"]["image"])[..., 0].T
    assert np.abs(grey - colours.astype(float).mean(-1)).max() <= 0.5
    assert "1 of 12 pictures in colours, 11 in grey (in colours: 0004): all are read as grey" in text
    assert json.loads((tmp_path / "out/datalist.json").read_text())["labels"] == {
        "0": "background",
        "1": "label_1",
        "2": "label_2",
    }


def test_colours_everywhere_are_three_channels(tmp_path: Path) -> None:
    source = picture_folders(tmp_path / "mine", 12)
    pictures = [noise(number, (12, 10, 3)) for number in range(12)]
    for number, picture in enumerate(pictures):
        write_picture(source / f"images/{number:04d}.png", picture)
    prepare(source, tmp_path / "out")
    content = json.loads((tmp_path / "out/datalist.json").read_text())
    assert list(content["modality"].values()) == ["red", "green", "blue"]
    stored = voxels(tmp_path / "out", entries(tmp_path / "out")["0005"]["image"])
    assert np.array_equal(stored[:, :, 0].transpose(1, 0, 2), pictures[5])
    loaded = LoadCased(keys=("image", "label"), num_classes=3)(load_datalist(tmp_path / "out", "training")[0])
    assert loaded["image"].shape == (3, 10, 12, 1)


def test_of_pictures_in_colours_and_grey_the_fewer_are_named(tmp_path: Path) -> None:
    source = picture_folders(tmp_path / "mine", 12)
    for number in (0, 1, 2, 3, 5, 6, 8, 9):
        write_picture(source / f"images/{number:04d}.png", noise(number, (12, 10, 3)))
    text = prepare(source, tmp_path / "out")
    assert "8 of 12 pictures in colours, 4 in grey (in grey: 0004, 0007, 0010, ...): all are read as grey" in text
    assert list(json.loads((tmp_path / "out/datalist.json").read_text())["modality"].values()) == ["image"]


def test_masks_in_colours_by_their_names(tmp_path: Path) -> None:
    source = picture_folders(tmp_path / "mine", 12)
    table = np.array([[0, 0, 0], [128, 0, 0], [0, 0, 255]], np.uint8)
    for number in range(12):
        write_picture(source / f"masks/{number:04d}.png", table[blocks(number, (12, 10), (0, 1, 2))])
    prepare(source, tmp_path / "out", labels=["vein=#0000ff", "artery=#800000"])
    content = json.loads((tmp_path / "out/datalist.json").read_text())
    assert content["labels"] == {"0": "background", "1": "vein", "2": "artery"}
    label = voxels(tmp_path / "out", entries(tmp_path / "out")["0002"]["label"])[..., 0].T
    assert np.array_equal(label, np.array([0, 2, 1])[blocks(2, (12, 10), (0, 1, 2))])


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".tiff"])
def test_other_pictures_and_endings_of_names(suffix: str, tmp_path: Path) -> None:
    source = picture_folders(tmp_path / "mine", 12, (0, 255), suffix)
    for path in sorted((source / "masks").iterdir()):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    prepare(source / "images", tmp_path / "out", source / "masks", labels=["lesion=255"])
    label = voxels(tmp_path / "out", entries(tmp_path / "out")["0002"]["label"])[..., 0].T
    assert np.array_equal(label, blocks(2, (12, 10), (0, 1)))


def test_nifti_stays_where_it_is(tmp_path: Path) -> None:
    source = nnunet(tmp_path / "Dataset501_Mine", [f"p{i}_{side}" for i in range(12) for side in "lr"])
    text = prepare(source, tmp_path / "out", patients=r"(p\d+)_")
    listed = entries(tmp_path / "out")
    assert listed["p3_l"]["image"] == str(source / "imagesTr/p3_l_0000.nii.gz")
    assert listed["p3_l"]["label"] == str(source / "labelsTr/p3_l.nii.gz")
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".png") == [
        "cases.csv",
        "datalist.json",
        "summary.txt",
    ]
    for first, second in (("training", "test"), ("training", "validation"), ("validation", "test")):
        assert not subjects_of(listed, first) & subjects_of(listed, second)
    assert "24 labelled cases, 12 subjects" in text
    assert list(json.loads((tmp_path / "out/datalist.json").read_text())["labels"].values()) == [
        "background",
        "left",
        "right",
    ]


def test_several_channels_ignored_values_and_labelled_test_cases_of_nnunet(tmp_path: Path) -> None:
    names = [f"case_{i:03d}" for i in range(10)]
    labels = {"background": 0, "left": 1, "right": 2, "ignore": 3}
    source = nnunet(tmp_path / "Dataset501_Mine", names, channels=2, labels=labels)
    write_volume(source / "labelsTr/case_004.nii.gz", blocks(0, (8, 6, 5), (0, 1, 2, 3)))
    for number in range(7):
        for channel in range(2):
            write_volume(source / f"imagesTs/late_{number}_{channel:04d}.nii.gz", noise(900 + number, (8, 6, 5)))
        write_volume(source / f"labelsTs/late_{number}.nii.gz", blocks(number, (8, 6, 5), (0, 1, 2)))
    prepare(source, tmp_path / "out")
    listed = entries(tmp_path / "out")
    assert listed["case_004"]["image"] == [str(source / f"imagesTr/case_004_000{channel}.nii.gz") for channel in (0, 1)]
    assert {name for name, entry in listed.items() if entry["split"] == "test"} == {f"late_{i}" for i in range(7)}
    content = json.loads((tmp_path / "out/datalist.json").read_text())
    assert content["ignore_index"] == 3
    assert list(content["modality"].values()) == ["contrast 0", "contrast 1"]
    assert list(content["labels"].values()) == ["background", "left", "right"]
    loaded = LoadCased(keys=("image", "label"), num_classes=3)(load_datalist(tmp_path / "out", "test")[0])
    assert loaded["image"].shape == (2, 8, 6, 5)


def test_regions_of_nnunet_become_their_values(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    source = nnunet(tmp_path / "mine", [f"a{i}" for i in range(9)], labels=labels, regions_class_order=[1, 2])
    assert "regions of dataset.json overlap (whole)" in prepare(source, tmp_path / "out")
    content = json.loads((tmp_path / "out/datalist.json").read_text())
    assert list(content["labels"].values()) == ["background", "label_1", "core"]
    assert content["regions"] == {"whole": [1, 2]}


def test_decathlon_with_the_rule_of_the_hippocampus(tmp_path: Path) -> None:
    names = [f"hippocampus_{number:03d}" for number in (1, 2, 3, 4, 7, 8, 11, 20, 21, 22, 31, 40, 55, 56, 57, 90)]
    source = decathlon(tmp_path / "Task04_Hippocampus", names, "Hippocampus")
    text = prepare(source, tmp_path / "out")
    for name, entry in entries(tmp_path / "out").items():
        assert entry["subject"] == hippocampus_subject(name) == str((int(name[-3:]) + 1) // 2)
    assert "taken as a patient" not in text
    assert "MSD Hippocampus" in json.loads((tmp_path / "out/datalist.json").read_text())["patients"]


def test_the_first_nnunet_listed_cases_and_kept_channels(tmp_path: Path) -> None:
    source = decathlon(tmp_path / "Task501_Mine", [f"a.{i}" for i in range(8)])
    for number in range(8):
        for channel in range(2):
            write_volume(source / f"imagesTr/a.{number}_{channel:04d}.nii.gz", noise(number, (8, 6, 5)))
        (source / f"imagesTr/a.{number}.nii.gz").unlink()
    content = json.loads((source / "dataset.json").read_text())
    (source / "dataset.json").write_text(json.dumps(content | {"modality": {"0": "T1", "1": "T2"}}))
    prepare(source, tmp_path / "out")
    assert entries(tmp_path / "out")["a.3"]["image"] == [str(source / f"imagesTr/a.3_000{i}.nii.gz") for i in (0, 1)]


@pytest.mark.parametrize("one_file", [True, False])
def test_nnunet_with_pictures(one_file: bool, tmp_path: Path) -> None:
    source = nnunet(tmp_path / "Dataset120_Roads", [], channels=3, ending=".png")
    colours = [noise(number, (12, 10, 3)) for number in range(8)]
    for number, picture in enumerate(colours):
        if one_file:
            write_picture(source / f"imagesTr/im_{number}_0000.png", picture)
        else:
            for channel in range(3):
                write_picture(source / f"imagesTr/im_{number}_{channel:04d}.png", picture[..., channel])
        write_picture(source / f"labelsTr/im_{number}.png", blocks(number, (12, 10), (0, 1, 2)))
    prepare(source, tmp_path / "out")
    names = ["red", "green", "blue"] if one_file else ["contrast 0", "contrast 1", "contrast 2"]
    assert list(json.loads((tmp_path / "out/datalist.json").read_text())["modality"].values()) == names
    stored = voxels(tmp_path / "out", entries(tmp_path / "out")["im_5"]["image"])
    assert np.array_equal(stored[:, :, 0].transpose(1, 0, 2), colours[5])


def test_nrrd_and_metaimage_become_nifti_in_their_place(tmp_path: Path) -> None:
    for number in range(8):
        for kind, suffix in (("images", ".nrrd"), ("labels", ".mha")):
            array = noise(number, (5, 6, 8)) if kind == "images" else blocks(number, (5, 6, 8), (0, 1))
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((0.5, 0.7, 2.0))
            image.SetOrigin((-3, 2, 5))
            (tmp_path / "mine" / kind).mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(image, str(tmp_path / "mine" / kind / f"v{number}{suffix}"))
    prepare(tmp_path / "mine", tmp_path / "out")
    entry = entries(tmp_path / "out")["v3"]
    stored = nib.load(tmp_path / "out" / entry["image"])
    assert np.array_equal(np.asanyarray(stored.dataobj), noise(3, (5, 6, 8)).transpose(2, 1, 0))
    expected = np.diag([-0.5, -0.7, 2.0, 1.0])  # ITK's axes run to the left and back
    expected[:3, 3] = (3, -2, 5)
    assert np.allclose(stored.affine, expected)


def test_several_raters_are_a_list_of_labels(tmp_path: Path) -> None:
    for number in range(12):
        write_picture(tmp_path / f"mine/images/cell_{number:02d}.png", noise(number, (12, 10)))
        for shift, rater in enumerate(("Ann", "Ben")):
            if (number, rater) != (5, "Ben"):
                mask = blocks(number + shift, (12, 10), (0, 1)).astype(bool)
                write_picture(tmp_path / f"mine/raters/{rater}/cell_{number:02d}.png", mask)
    pattern = "raters/{rater}/{case}.png"
    text = prepare(tmp_path / "mine", tmp_path / "out", raters=pattern, labels=["cell=1"])
    assert "cell_05 has no label of Ben" in text
    listed = entries(tmp_path / "out")
    assert listed["cell_03"]["raters"] == ["Ann", "Ben"]
    assert listed["cell_05"]["raters"] == ["Ann"]
    for shift, named in enumerate(listed["cell_03"]["label"]):
        assert np.array_equal(voxels(tmp_path / "out", named)[..., 0].T, blocks(3 + shift, (12, 10), (0, 1)))
    cases = [case for split in ("training", "validation", "test") for case in load_datalist(tmp_path / "out", split)]
    assert len(cases) == 23
    assert {case["subject"] for case in cases if case["case"].startswith("cell_03")} == {"cell_03"}
    assert main(["prepare", str(tmp_path / "mine"), str(tmp_path / "mine" / pattern), str(tmp_path / "two")]) == 0
    assert entries(tmp_path / "two")["cell_03"]["raters"] == ["Ann", "Ben"]


def test_folders_below_are_patients_and_masks_may_lie_beside_images(tmp_path: Path) -> None:
    for number in range(16):
        place = tmp_path / f"mine/p{number // 2}"
        write_picture(place / f"im_{number}.png", noise(number, (12, 10)))
        for shift, rater in enumerate(("x_y", "z")):
            mask = blocks(number + shift, (12, 10), (0, 1)).astype(np.uint16) * 1000
            write_picture(place / f"im_{number}_{rater}.png", mask)
    prepare(tmp_path / "mine", tmp_path / "out", raters="{case}_{rater}.png", patients=r"(p\d+)_")
    listed = entries(tmp_path / "out")
    assert {name: entry["subject"] for name, entry in listed.items()} == {
        f"p{number // 2}_im_{number}": f"p{number // 2}" for number in range(16)
    }
    assert listed["p1_im_3"]["raters"] == ["x_y", "z"]
    label = voxels(tmp_path / "out", listed["p1_im_3"]["label"][1])[..., 0].T
    assert np.array_equal(label, blocks(4, (12, 10), (0, 1)))


def test_values_beyond_eight_bits_are_values_like_others(tmp_path: Path) -> None:
    for number in range(8):
        label = blocks(number, (8, 6, 5), (0, 1, 2)).astype(np.int32)
        write_volume(tmp_path / f"mine/images/{number}.nii.gz", noise(number, (8, 6, 5)))
        write_volume(tmp_path / f"mine/labels/{number}.nii.gz", np.array([0, 1035, 17], np.int32)[label])
    prepare(tmp_path / "mine", tmp_path / "out", labels=["insula=1035", "hippocampus=17"])
    content = json.loads((tmp_path / "out/datalist.json").read_text())
    assert list(content["labels"].values()) == ["background", "hippocampus", "insula"]
    stored = voxels(tmp_path / "out", entries(tmp_path / "out")["5"]["label"])
    assert np.array_equal(stored, np.array([0, 2, 1])[blocks(5, (8, 6, 5), (0, 1, 2))])


def test_a_class_that_a_split_lacks_is_said(tmp_path: Path) -> None:
    text = prepare(picture_folders(tmp_path / "mine", 12), tmp_path / "out", labels=["a=1", "b=2", "c=3"])
    assert "c is in no case of training, validation, test" in text
    source = picture_folders(tmp_path / "again", 12)
    (source / "images/0003.png").write_bytes((source / "images/0009.png").read_bytes())
    text = prepare(source, tmp_path / "out2")
    assert "1 image is the same file in several subjects (0003 = 0009)" in text


def test_a_table_names_everything(tmp_path: Path) -> None:
    rows = ["Image,Label,Case,Patient,Split,Group"]
    for number in range(10):
        write_volume(tmp_path / f"files/a{number}.nii.gz", noise(number, (8, 6, 5)))
        write_volume(tmp_path / f"files/b{number}.nii.gz", blocks(number, (8, 6, 5), (0, 1)))
        split = "test" if number < 6 else ""
        rows.append(f"files/a{number}.nii.gz,files/b{number}.nii.gz,scan {number},{number // 2},{split},{number // 6}")
    (tmp_path / "cases.csv").write_text("\n".join(rows))
    prepare(tmp_path / "cases.csv", tmp_path / "out", fractions=(0.5, 0.5, 0))
    listed = entries(tmp_path / "out")
    assert subjects_of(listed, "test") == {"0", "1", "2"}
    assert len(subjects_of(listed, "training")) == len(subjects_of(listed, "validation")) == 1
    assert listed["scan 7"]["group"] == "1"
    # what was written is a table again, and comes out the same
    prepare(tmp_path / "out/datalist.json", tmp_path / "again")
    assert entries(tmp_path / "again") == listed


def test_channels_and_raters_in_a_table(tmp_path: Path) -> None:
    rows = []
    for number in range(8):
        for kind in ("t1", "t2"):
            write_volume(tmp_path / f"{kind}_{number}.nii.gz", noise(number, (8, 6, 5)))
        for shift, rater in enumerate("xy"):
            write_volume(tmp_path / f"{rater}_{number}.nii.gz", blocks(number + shift, (8, 6, 5), (0, 1)))
        rows.append(f"t1_{number}.nii.gz;t2_{number}.nii.gz;x_{number}.nii.gz;y_{number}.nii.gz;{number}")
    (tmp_path / "cases.csv").write_text("\n".join(["image_t1;image_t2;label_x;label_y;case", *rows]))
    prepare(tmp_path / "cases.csv", tmp_path / "out")
    assert list(json.loads((tmp_path / "out/datalist.json").read_text())["modality"].values()) == ["t1", "t2"]
    assert entries(tmp_path / "out")["4"]["raters"] == ["x", "y"]
    loaded = LoadCased(keys=("image", "label"), num_classes=2)(load_datalist(tmp_path / "out", "training")[1])
    assert loaded["image"].shape == (2, 8, 6, 5)


def test_overwrite_replaces_at_the_end_only(tmp_path: Path) -> None:
    source = picture_folders(tmp_path / "mine", 12)
    prepare(source, tmp_path / "out", labels=["a=1", "b=2"])
    with pytest.raises(SourceError, match="not an empty folder"):
        prepare(source, tmp_path / "out")
    before = (tmp_path / "out/datalist.json").read_bytes()
    with pytest.raises(SourceError, match="unknown label value 2"):
        prepare(source, tmp_path / "out", labels=["a=1"], overwrite=True)
    assert (tmp_path / "out/datalist.json").read_bytes() == before
    prepare(source, tmp_path / "out", labels=["c=1", "d=2"], overwrite=True)
    assert json.loads((tmp_path / "out/datalist.json").read_text())["labels"]["1"] == "c"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/thesis.txt").write_text("")
    with pytest.raises(SourceError, match=r"no datalist\.json, so it is not replaced"):
        prepare(source, tmp_path / "precious", overwrite=True)
    with pytest.raises(SourceError, match="lies in it and would be replaced"):
        prepare(tmp_path / "out/datalist.json", tmp_path / "out", overwrite=True)


def test_an_interrupted_run_goes_on_only_with_the_same_classes(tmp_path: Path) -> None:
    source = picture_folders(tmp_path / "mine", 12)

    def stop_after_five(cases):
        for number, case in enumerate(cases):
            if number == 5:
                raise KeyboardInterrupt
            yield case

    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "out", labels=["a=1", "b=2"], progress=stop_after_five)
    assert not (tmp_path / "out").exists()
    prepare(source, tmp_path / "out", labels=["both=1,2"])
    listed = entries(tmp_path / "out")
    for number in range(12):
        label = voxels(tmp_path / "out", listed[f"{number:04d}"]["label"])[..., 0].T
        assert np.array_equal(label, blocks(number, (12, 10), (0, 1, 2)) > 0)


def test_the_command_says_what_it_wrote_and_checks_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(picture_folders(tmp_path / "mine", 12))
    out = str(tmp_path / "out")
    assert main(["prepare", source, "--seed", "3", out, "--labels", "a=1", "b=2", "--overwrite", "True"]) == 0
    said = capsys.readouterr().out
    assert f"Wrote {out}/datalist.json" in said
    assert "Next:" in said
    assert json.loads((tmp_path / "out/datalist.json").read_text())["seed"] == 3
    with pytest.raises(SystemExit) as stop:
        main(["prepare", "--check", out])
    assert stop.value.code == 0
    assert "12 cases, all as written" in capsys.readouterr().out
    label = next((tmp_path / "out/labelsTr").iterdir())
    write_volume(label, np.zeros((10, 12, 1), np.uint8), np.diag([1.0, -1, 1, 1]))
    assert main(["prepare", "--check", out]) == 1
    assert "is not the file that was written" in capsys.readouterr().err


def test_changes_of_files_in_place_are_seen_by_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = nnunet(tmp_path / "mine", [f"a{i}" for i in range(9)], channels=2)
    prepare(source, tmp_path / "out")
    write_volume(source / "imagesTr/a3_0001.nii.gz", noise(77, (8, 6, 5)), AFFINE)
    assert main(["prepare", "--check", str(tmp_path / "out")]) == 1
    assert "a3_0001.nii.gz is not the file that was written" in capsys.readouterr().err
