"""Conversions of what no official download should hold, side by side, and without the optional parts."""

from __future__ import annotations

import csv
import json
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from official_layouts import Official, msd_hippocampus, script
from PIL import Image

from monai_calib.datasets import contact_sheet
from monai_calib.datasets.command import run
from monai_calib.datasets.convert import convert
from monai_calib.datasets.dataset import SourceError, Volume
from monai_calib.datasets.pictures import mask_values, read_mask, read_picture
from monai_calib.datasets.summary import summarise, write_table
from monai_calib.datasets.volumes import check_same_grid, read_volume
from monai_calib.lock import FolderLock

DATASET = script("msd_hippocampus")
RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.fixture
def official(tmp_path: Path) -> Official:
    return msd_hippocampus(tmp_path / "download")


def refused(official: Official, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run(DATASET, [str(official.source), str(tmp_path / "target/out")]) == 1
    assert list((tmp_path / "target").iterdir()) == []
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_of_two_conversions_of_one_folder_the_second_is_refused_in_a_line(
    official: Official, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FolderLock(tmp_path / ".out.partial", "a conversion"):
        monkeypatch.setattr("monai_calib.lock._held", {})  # as another process sees it
        assert run(DATASET, [str(official.source), str(tmp_path / "out")]) == 1
        monkeypatch.undo()
    [line] = capsys.readouterr().err.splitlines()
    assert "in use by process" in line
    assert "a conversion" in line
    assert run(DATASET, [str(official.source), str(tmp_path / "out")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"download", "out"}
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize("kind", ["image_file", "label_file"])
@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((9, 12, 8), RGB), "holds colours"),
        (np.zeros((9, 12, 8), np.complex64), "holds complex numbers"),
        (np.zeros((9, 12), np.uint8), "(9, 12, 1)"),
    ],
)
def test_voxels_that_are_no_numbers_are_not_called_a_bad_download(
    official: Official,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    array: np.ndarray[Any, Any],
    told: str,
) -> None:
    file = getattr(official, kind)
    official.write(file, array)
    said = refused(official, tmp_path, capsys)
    assert file.name in said
    assert told in said
    assert "again" not in said.replace("Download or unpack", "")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_voxel_size_that_is_not_finite_is_named(official: Official, value: float) -> None:
    plain = official.label_file.with_suffix("").with_suffix(".nii")
    nib.save(nib.load(official.label_file), plain)
    content = bytearray(plain.read_bytes())
    content[80:84] = struct.pack("<f", value)
    plain.write_bytes(content)
    with pytest.raises(SourceError, match=rf"{plain.name}: .*voxel size \(pixdim\) is not finite"):
        read_volume(plain)


@pytest.mark.parametrize("code", [2, 4])  # uint8 and int16 in place of int32
def test_a_header_that_claims_a_part_of_the_voxels_is_named(tmp_path: Path, code: int) -> None:
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(np.ones((9, 12, 8), np.int32), np.eye(4)), path)
    content = bytearray(path.read_bytes())
    content[70:74] = struct.pack("<hh", code, 8 if code == 2 else 16)
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"scan\.nii: expected .* bytes of voxels, as its header says"):
        read_volume(path)


def test_the_second_version_of_nifti_is_read(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    nib.save(nib.Nifti2Image(array, np.diag([1, 2, 3, 1])), tmp_path / "scan.nii.gz")
    assert np.array_equal(read_volume(tmp_path / "scan.nii.gz").array, array)


def test_a_label_some_tenths_of_a_voxel_away_is_written_where_the_image_is(official: Official, tmp_path: Path) -> None:
    affine = nib.load(official.image_file).affine.copy()
    affine[0, 3] += 0.3
    label = np.asanyarray(nib.load(official.label_file).dataobj)
    nib.save(nib.Nifti1Image(label, affine), official.label_file)
    with pytest.warns(UserWarning, match=r"0\.3 voxels; the label is taken to lie where the image does"):
        convert(DATASET, official.source, tmp_path / "out")
    written = [nib.load(tmp_path / f"out/{kind}Tr/hippocampus_001.nii.gz") for kind in ("images", "labels")]
    assert np.array_equal(written[0].affine, written[1].affine)


def test_two_forms_of_a_header_are_compared_like_with_like(tmp_path: Path) -> None:
    turned = nib.affines.from_matvec(
        np.array([[0.9, -0.1, 0.2], [0.12, 0.88, -0.1], [-0.15, 0.14, 2.9]]), [-80.0, -60.0, 20.0]
    )
    image = nib.Nifti1Image(np.zeros((60, 60, 30), np.int16), None)
    image.set_sform(turned, code=1)
    image.set_qform(turned, code=1, strip_shears=True)
    label = nib.Nifti1Image(np.zeros((60, 60, 30), np.uint8), None)
    label.set_qform(image.get_qform(), code=1)
    for name, volume in (("image", image), ("label", label)):
        nib.save(volume, tmp_path / f"{name}.nii.gz")
    read = [read_volume(tmp_path / f"{name}.nii.gz") for name in ("image", "label")]
    assert check_same_grid(*read, tmp_path / "image.nii.gz", tmp_path / "label.nii.gz") < 1e-4
    with pytest.raises(SourceError, match="voxels"):  # the forms themselves are voxels apart
        check_same_grid(Volume(read[0].array, read[0].affine), read[1], tmp_path / "image", tmp_path / "label")


def palette(path: Path) -> Path:
    mask = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8), "P")
    mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    mask.save(path)
    return path


def test_a_palette_is_read_as_its_indices_in_a_mask_and_as_its_colours_in_a_picture(tmp_path: Path) -> None:
    file = palette(tmp_path / "mask.png")
    assert mask_values(file).tolist() == [[0, 2], [1, 0]]
    assert read_picture(file).array[..., 0].tolist() == [[0, 43], [43, 0]]
    with pytest.raises(SourceError, match=r"mask\.png: unknown label value 2"):
        read_mask([file])


def test_a_mask_in_colours_is_refused_and_never_averaged(tmp_path: Path) -> None:
    Image.open(palette(tmp_path / "mask.png")).convert("RGB").save(tmp_path / "colours.png")
    with pytest.raises(SourceError, match=r"colours\.png: expected a mask of class numbers, got colours"):
        read_mask([tmp_path / "colours.png"])


def test_a_contact_sheet_that_cannot_be_drawn_ends_no_conversion(
    official: Official, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("aspect must be finite and positive")

    monkeypatch.setattr(contact_sheet, "_slice", fail)
    assert run(DATASET, [str(official.source), str(tmp_path / "out")]) == 0
    assert "No contact sheet: ValueError: aspect must be finite" in capsys.readouterr().out
    assert not (tmp_path / "out/contact_sheet.png").exists()
    assert (tmp_path / "out/datalist.json").is_file()


def test_a_list_nested_without_end_is_named(official: Official, tmp_path: Path, capsys: Any) -> None:
    (official.source / "dataset.json").write_text("[" * 100_000)
    assert "dataset.json: not a Decathlon dataset.json" in refused(official, tmp_path, capsys)


def small_list(case: str = "a", group: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    entry = {"case": case, "subject": "1", **({"group": group} if group else {})}
    about = {"name": "Own", "seed": 0, "labels": {"0": "background"}}
    datalist = {**about, "training": [entry], "validation": [], "test": []}
    return datalist, {case: {"shape": [2, 2, 2], "spacing": [1, 1, 1], "voxels": [8]}}


def test_only_an_official_download_is_called_official() -> None:
    assert "1 of the official 7 labelled cases" in summarise(*small_list(), 7)
    own = summarise(*small_list(), None)
    assert own.startswith("Own: 1 labelled case, 1 subject,")
    assert "official" not in own


@pytest.mark.parametrize("name", ["=1+1", "x\r=1+1", " @SUM(A1)"])
def test_a_name_is_no_formula_in_the_table(tmp_path: Path, name: str) -> None:
    write_table(*small_list(name, "+2"), tmp_path / "cases.csv")
    with (tmp_path / "cases.csv").open(newline="") as file:
        _, row = csv.reader(file)
    assert row[0] in ("'=1+1", "x =1+1", "' @SUM(A1)")
    assert row[3] == "'+2"
    assert "\r" not in (tmp_path / "cases.csv").read_text()


def test_the_datalist_is_what_a_bundle_reads(official: Official, tmp_path: Path) -> None:
    from monai_calib.datasets import load_datalist

    convert(DATASET, official.source, tmp_path / "out")
    listed = json.loads((tmp_path / "out/datalist.json").read_text())
    for split in ("training", "validation", "test"):
        cases = load_datalist(tmp_path / "out", split)
        assert [(case["case"], case["subject"]) for case in cases] == [
            (entry["case"], entry["subject"]) for entry in listed[split]
        ]
