"""What is wrong with own data is named, all at once, with what to do; and nothing is left behind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from other_process import held
from own_data import (
    blocks,
    decathlon,
    nnunet,
    noise,
    picture_folders,
    write_picture,
    write_volume,
)
from PIL import Image

from monai_calib.__main__ import main
from monai_calib.datasets.dataset import SourceError
from monai_calib.datasets.label_names import parse_labels
from monai_calib.datasets.patients import name_patients, read_test_list
from monai_calib.datasets.prepare import prepare
from monai_calib.lock import FolderInUseError

NAMED = ["a=1", "b=2"]


def told(source: Path, output: Path, labels_at: Any = None, **options: Any) -> str:
    """The text of the refusal, after checking that nothing was written or changed."""
    before = {path: path.stat().st_mtime_ns for path in output.parent.rglob("*")}
    with pytest.raises(SourceError) as refusal:
        prepare(source, output, labels_at, **options)
    assert {path: path.stat().st_mtime_ns for path in output.parent.rglob("*")} == before
    return str(refusal.value)


def test_all_problems_are_in_one_list(tmp_path: Path) -> None:
    source = picture_folders(tmp_path / "mine", 20)
    (source / "masks/0001.png").unlink()
    (source / "images/0002.png").unlink()
    write_picture(source / "masks/0003.png", blocks(3, (12, 10), (0, 1, 7)))
    write_picture(source / "masks/0004.png", np.array([[0, 0, 0], [128, 0, 0]], np.uint8)[blocks(4, (12, 10), (0, 1))])
    write_picture(source / "masks/0005.png", blocks(5, (13, 10), (0, 1)))
    (source / "images/0006.png").write_bytes((source / "images/0006.png").read_bytes()[:60])
    write_picture(source / "images/0007.jpg", noise(7, (12, 10)))
    (tmp_path / "patients.csv").write_text("case,patient\n" + "".join(f"{i:04d},p{i // 2}\n" for i in range(19)))
    (tmp_path / "test.txt").write_text("0008\n0009\n0044\n0010\n")
    said = told(
        source, tmp_path / "out", labels=NAMED, patients=str(tmp_path / "patients.csv"), test=tmp_path / "test.txt"
    )
    assert "problems; nothing was written" in said
    for expected in (
        r"images/0001\.png: no label of this name in .*masks\. Add it",
        r"masks/0002\.png: no image of this name in .*images\. Add it",
        r"0003: .*masks/0003\.png: unknown label value 7; expected \[0, 1, 2\]\. Name it with --labels",
        r"masks/0004\.png: expected a mask of class numbers, got 2 colours\. .*--labels label_1='#800000'",
        r"masks/0005\.png: expected \(10, 12, 1\) voxels as in the image .* got \(10, 13, 1\)\. .*resample",
        r"images/0006\.png: cannot be read as a picture",
        r"0007\.jpg and .*0007\.png: one name twice\. Keep one",
        r"0019: no patient in .*patients\.csv\. Add a row",
        r"test\.txt: 0044 is no case\. Correct or remove the line",
        r"patient p5: 0010 in test and 0011 in the rest\. A patient is in one split",
    ):
        assert re.search(expected, said), expected


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda s: [path.unlink() for path in (s / "images").iterdir()], r"images: expected images .*folder is empty"),
        (lambda s: (s / "masks").rename(s / "drawn"), r"no layout recognised.*name them: prepare IMAGES LABELS OUT"),
        (lambda s: (s / "labels").mkdir(), r"labels in .*masks and .*labels\. Say which: prepare"),
        (lambda s: (s / "dataset.json").write_text("{"), r"dataset\.json: cannot be read as JSON .* Mend the file"),
        (lambda s: (s / "dataset.json").write_text("{}"), r"no layout recognised"),
    ],
)  # fmt: skip
def test_a_source_that_is_no_data_set(spoil: Callable[[Path], Any], expected: str, tmp_path: Path) -> None:
    source = picture_folders(tmp_path / "mine", 4)
    spoil(source)
    assert re.search(expected, told(source, tmp_path / "out"), re.DOTALL)


def test_places_that_are_not_there(tmp_path: Path) -> None:
    source = picture_folders(tmp_path / "mine", 4)
    assert "no such folder" in told(tmp_path / "nothing", tmp_path / "out")
    assert "no such folder" in told(source / "images", tmp_path / "out", source / "nothing")
    assert "given as images and as labels" in told(source / "images", tmp_path / "out", source / "images")
    assert "Unpack an archive first" in told(source / "images/0001.png", tmp_path / "out")
    assert "lies inside the download" in told(source, source / "out")
    assert "matches no file" in told(source, tmp_path / "out", raters="raters/{rater}/{case}.png")
    assert "expected {rater} and {case}" in told(source, tmp_path / "out", raters="raters/*.png")
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom/1.dcm").write_bytes(b"")
    assert "dicom to-nifti" in told(tmp_path / "dicom", tmp_path / "out")


def test_a_mask_with_too_many_values_is_none(tmp_path: Path) -> None:
    source = picture_folders(tmp_path / "mine", 12, (0, 255))
    for path in sorted((source / "masks").iterdir()):
        Image.open(path).resize((20, 24), Image.Resampling.BICUBIC).save(path.with_suffix(".jpg"), quality=30)
        path.unlink()
        picture = source / "images" / path.name
        Image.open(picture).resize((20, 24)).save(picture)
    for path in (source / "masks").glob("*.jpg"):
        Image.fromarray(noise(int(path.stem), (24, 20))).save(path, quality=100)
    said = told(source, tmp_path / "out")
    assert "which are no class numbers" in said
    assert "JPEG changes the values of a mask: save it anew as PNG" in said


def test_labels_in_which_nothing_is_drawn(tmp_path: Path) -> None:
    source = picture_folders(tmp_path / "mine", 8, (0,))
    assert "hold nothing but 0" in told(source, tmp_path / "out")


def test_pages_and_mixed_kinds_are_refused(tmp_path: Path) -> None:
    source = picture_folders(tmp_path / "mine", 6)
    pages = [Image.fromarray(noise(i, (12, 10))) for i in range(3)]
    (source / "images/0001.png").unlink()
    pages[0].save(source / "images/0001.tif", save_all=True, append_images=pages[1:])
    (source / "masks/0002.png").unlink()
    write_volume(source / "masks/0002.nii.gz", noise(2, (10, 12, 1)))
    said = told(source, tmp_path / "out", labels=NAMED)
    assert "0001.tif: holds 3 pictures; expected one. Save a stack as NIfTI" in said
    assert "are a volume and a picture. Save both in one format" in said


def test_colours_that_are_not_named(tmp_path: Path) -> None:
    source = picture_folders(tmp_path / "mine", 6)
    table = np.array([[0, 0, 0], [128, 0, 0], [0, 200, 10]], np.uint8)
    for path in (source / "masks").iterdir():
        write_picture(path, table[blocks(int(path.stem), (12, 10), (0, 1, 2))])
    said = told(source, tmp_path / "out", labels=["red=#800000"])
    assert "unknown colour #00c80a; expected #000000, #800000. Name it: --labels name='#00c80a'" in said
    assert len(re.findall("unknown colour", said)) == 6


def test_what_is_wrong_with_an_nnunet_folder(tmp_path: Path) -> None:
    names = [f"a{i}" for i in range(8)]
    source = nnunet(tmp_path / "mine", names, channels=2)
    (source / "imagesTr/a1_0001.nii.gz").unlink()
    (source / "labelsTr/a2.nii.gz").unlink()
    (source / "imagesTr/a3_0000.nii.gz").rename(source / "imagesTr/a3.nii.gz")
    write_volume(source / "labelsTr/a4.nii.gz", blocks(1, (8, 6, 5), (0, 1)), np.eye(4))
    said = told(source, tmp_path / "out")
    for expected in (
        r"a1_0001\.nii\.gz: missing for the label or the other channels of a1",
        r"labelsTr/a2\.nii\.gz: missing for the image of a2",
        r"a3\.nii\.gz: expected a name such as case_0000\.nii\.gz\. Rename it",
        r"a4\.nii\.gz: the headers put label and image",
    ):
        assert re.search(expected, said), expected
    for key, value in (("file_ending", None), ("channel_names", {"1": "x"}), ("labels", {})):
        nnunet(tmp_path / "mine", names, **{key: value})
        assert f"dataset.json: {key}: expected" in told(source, tmp_path / "out")


def test_what_is_wrong_with_a_decathlon_folder(tmp_path: Path) -> None:
    source = decathlon(tmp_path / "mine", [f"a{i}" for i in range(8)])
    (source / "labelsTr/a1.nii.gz").unlink()
    write_volume(source / "imagesTr/extra.nii.gz", noise(1, (8, 6, 5)))
    content = json.loads((source / "dataset.json").read_text())
    content["training"].append("a9.nii.gz")
    (source / "dataset.json").write_text(json.dumps(content))
    said = told(source, tmp_path / "out")
    for expected in (
        r"labelsTr/a1\.nii\.gz: missing, though dataset\.json names it",
        r"extra\.nii\.gz: not named in dataset\.json",
        r"training, entry 8: expected image and label, got 'a9\.nii\.gz'",
    ):
        assert re.search(expected, said), expected


def test_what_is_wrong_with_a_table(tmp_path: Path) -> None:
    source = nnunet(tmp_path / "mine", [f"a{i}" for i in range(6)])
    rows = ["image,label,subject,split"]
    rows += [f"mine/imagesTr/a{i}_0000.nii.gz,mine/labelsTr/a{i}.nii.gz,{i},training" for i in range(5)]
    rows += ["mine/imagesTr/no.nii.gz,mine/labelsTr/a5.nii.gz,5,test", "mine/imagesTr/a5_0000.nii.gz,,5,test"]
    rows += ["mine/imagesTr/a5_0000.nii.gz,mine/labelsTr/a5.nii.gz,4,testset"]
    (tmp_path / "cases.csv").write_text("\n".join(rows))
    said = told(tmp_path / "cases.csv", tmp_path / "out")
    for expected in (
        r"row 6: .*no\.nii\.gz: missing\. Paths are relative to the table",
        r"row 7: no label, only image, label, subject, split",
        r"row 8: split: expected training, validation, test or nothing, got testset",
    ):
        assert re.search(expected, said), expected
    (tmp_path / "empty.csv").write_text("image,label\n")
    assert "expected rows with image and label, got none" in told(tmp_path / "empty.csv", tmp_path / "out")
    (tmp_path / "latin.csv").write_bytes("image,label\nä,ö".encode("latin-1"))
    assert "Save it as CSV in UTF-8" in told(tmp_path / "latin.csv", tmp_path / "out")
    assert source.is_dir()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"labels": ["nerve"]}, r"--labels nerve: expected name=value"),
        ({"labels": ["=1"]}, r"Put a name before the ="),
        ({"labels": ["a=red"]}, r"whole number, or a colour"),
        ({"labels": ["a=1", "b=1"]}, r"1 has two names"),
        ({"labels": ["a=1", "b=#800000"]}, r"numbers and colours are mixed"),
        ({"unit": "cm"}, r"--unit cm: expected mm or px"),
        ({"patients": "(", "labels": NAMED}, r"no regular expression"),
        ({"patients": "nobody.csv"}, r"nobody\.csv: cannot be read"),
        ({"patients": "x", "block": 2}, r"Give one of them"),
        ({"patients": "p(\\d+)"}, r"0000: no patient by --patients"),
        ({"block": 0}, r"--block 0: expected 1 or more"),
        ({"test": "no.txt"}, r"--test no\.txt: cannot be read"),
        ({"fractions": (0, 1, 0)}, r"--fractions"),
        ({"fractions": (1, float("nan"), 0)}, r"--fractions"),
        ({"folds": 30}, r"--folds 30: expected 2 to \d+"),
        ({"folds": 1}, r"--folds 1: expected 2"),
        ({"exclude": ["0099"]}, r"--exclude 0099: no such case"),
    ],
)
def test_options_that_say_nothing(options: dict[str, Any], expected: str, tmp_path: Path) -> None:
    assert re.search(expected, told(picture_folders(tmp_path / "mine", 9), tmp_path / "out", **options))


def test_pixels_are_no_unit_of_volumes_in_mm(tmp_path: Path) -> None:
    source = nnunet(tmp_path / "mine", [f"a{i}" for i in range(8)])
    assert "voxels of 0.5 x 0.7 x 2 mm. Leave --unit out" in told(source, tmp_path / "out", unit="px")
    for path in source.rglob("*.nii.gz"):
        array = np.asanyarray(nib.load(path).dataobj)
        write_volume(path, array, np.eye(4))
    prepare(source, tmp_path / "out", unit="px")
    assert json.loads((tmp_path / "out/datalist.json").read_text())["unit"] == "px"


def test_a_subject_in_two_groups_and_a_case_with_two_patients(tmp_path: Path) -> None:
    source = picture_folders(tmp_path / "mine", 8)
    lines = [f"{i:04d},{i // 2},{'x' if i else 'y'}" for i in range(8)]
    (tmp_path / "p.csv").write_text("\n".join(["case,patient,group", *lines, "0003,9,x"]))
    said = told(source, tmp_path / "out", patients=str(tmp_path / "p.csv"))
    assert "patient 0: in the groups 'x', 'y'" in said
    assert "0003 has two patients, 1 and 9" in said


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    source = picture_folders(tmp_path / "mine", 8)
    with held(tmp_path / ".out.partial"), pytest.raises(FolderInUseError, match="in use by process"):
        prepare(source, tmp_path / "out")
    prepare(source, tmp_path / "out")
    assert (tmp_path / "out/datalist.json").is_file()


def test_the_command_ends_with_1_and_the_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = picture_folders(tmp_path / "mine", 8)
    (source / "masks/0001.png").unlink()
    assert main(["prepare", str(source), str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "monai_calib: 1 problem; nothing was written" in said
    assert "no label of this name" in said


def test_helpers_say_what_they_found(tmp_path: Path) -> None:
    assert parse_labels(["a b=#000001", "c=#AB00ff"]) == {"a b": ["#000001"], "c": ["#ab00ff"]}
    (tmp_path / "t.txt").write_text("x.nii.gz\nq")
    found, problems = read_test_list(tmp_path / "t.txt", ["x"])
    assert found == ["x"]
    assert problems == [f"{tmp_path}/t.txt: q is no case. Correct or remove the line."]
    with pytest.raises(SourceError, match="--patients and --block"):
        name_patients([], "", "x", 2)
