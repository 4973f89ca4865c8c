"""Each converter on a tiny download in its data set's official layout: what it makes of it, and what it refuses."""

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # its customary name
from official_layouts import LAYOUTS, script, snapshot, stray

from monai_calib.datasets.command import run
from monai_calib.datasets.dataset import Dataset

KEYS = sorted(LAYOUTS)


@pytest.fixture(scope="module", params=KEYS)
def converted(request, tmp_path_factory):
    official = LAYOUTS[request.param](tmp_path_factory.mktemp("download of the data"))
    before = snapshot(official.source)
    output = tmp_path_factory.mktemp("converted") / "out"
    assert run(script(request.param), [str(official.source), str(output)]) == 0
    assert snapshot(official.source) == before
    return official, script(request.param), output, json.loads((output / "datalist.json").read_text())


def entries(datalist):
    return [entry for split in ("training", "validation", "test") for entry in datalist[split]]


def at_the_same_places(written: nib.Nifti1Image, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The written values on the grid of the source, each found by its place in the patient, in mm."""
    source = np.indices(shape).reshape(3, -1)
    places = affine @ np.vstack([source, np.ones(source.shape[1])])
    found = np.linalg.inv(written.affine) @ places
    index = np.rint(found[:3]).astype(int)
    assert np.abs(found[:3] - index).max() < 0.01
    values = np.asanyarray(written.dataobj)[tuple(index)]
    return values.reshape(*shape, *values.shape[1:])


def test_every_voxel_keeps_its_value_and_its_place(converted):
    official, _, output, datalist = converted
    assert {entry["case"] for entry in entries(datalist)} == set(official.cases)
    for entry in entries(datalist):
        image, label, affine = official.cases[entry["case"]]
        written = {kind: nib.load(output / entry[kind]) for kind in ("image", "label")}
        assert np.array_equal(at_the_same_places(written["image"], affine, image.shape[:3]), image)
        assert np.array_equal(at_the_same_places(written["label"], affine, image.shape[:3]), label)
        assert sorted(written["image"].header.get_zooms()[:3]) == pytest.approx(
            sorted(np.linalg.norm(affine[:3, :3], axis=0)), rel=1e-4
        )
        assert np.asanyarray(written["label"].dataobj).dtype.kind in "iu"


def test_slices_lie_along_the_last_axis(converted):
    official, dataset, output, datalist = converted
    for entry in entries(datalist):
        sizes = nib.load(output / entry["image"]).header.get_zooms()[:3]
        thick = np.linalg.norm(official.cases[entry["case"]][2][:3, :3], axis=0).max()
        assert sizes[2] == pytest.approx(thick, rel=1e-4), dataset.key


def test_monai_reads_the_datalist(converted):
    from monai.data import load_decathlon_datalist
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

    _, dataset, output, _ = converted
    read = Compose([LoadImaged(["image", "label"]), EnsureChannelFirstd(["image", "label"])])
    cases = load_decathlon_datalist(str(output / "datalist.json"), True, "training", base_dir=str(output))
    loaded = read(cases[0])
    assert loaded["image"].shape[0] == len(dataset.modality)
    assert loaded["label"].shape[0] == 1
    assert loaded["image"].shape[1:] == loaded["label"].shape[1:]
    assert loaded["label"].max() < len(dataset.labels)


def test_splits_are_by_subject_and_hold_every_group(converted):
    _, dataset, _, datalist = converted
    subjects = [{entry["subject"] for entry in datalist[split]} for split in ("training", "validation", "test")]
    assert not subjects[0] & subjects[1]
    assert not subjects[0] & subjects[2]
    assert not subjects[1] & subjects[2]
    assert all(subjects)
    groups = {entry["group"] for entry in entries(datalist) if "group" in entry}
    assert bool(groups) == (dataset.key in ("acdc", "brats19", "busi"))
    trained = {entry["group"] for entry in datalist["training"] if "group" in entry}
    assert groups - trained <= {"benign+malignant"}


def test_the_datalist_says_what_the_data_are(converted):
    _, dataset, output, datalist = converted
    assert datalist["name"] == dataset.title
    assert datalist["licence"]
    assert datalist["labels"]["0"] == "background"
    assert len(datalist["modality"]) == len(dataset.modality)
    assert (output / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")
    assert f"{len(entries(datalist))} of the official {dataset.cases}" in (output / "summary.txt").read_text()
    assert {path.name for path in output.iterdir()} == {
        *("imagesTr", "labelsTr", "datalist.json", "summary.txt", "cases.csv", "contact_sheet.png")
    }


def test_more_folders_and_what_a_mac_leaves_change_nothing(converted, tmp_path):
    official, dataset, _, datalist = converted
    source = tmp_path / "unpacked" / official.source.name
    shutil.copytree(official.source, source)
    for path in [source, *source.rglob("*")]:
        if path.is_dir():
            stray(path / ".DS_Store")
        else:
            stray(path.with_name(f"._{path.name}"))
            stray(tmp_path / "unpacked/__MACOSX" / path.relative_to(tmp_path / "unpacked"))
    assert run(dataset, [str(tmp_path / "unpacked"), str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out/datalist.json").read_text()) == datalist


def refused(dataset: Dataset, source, tmp_path, capsys) -> str:
    """Convert, demand a refusal that leaves nothing behind, and return what it says."""
    place = tmp_path / "target"
    place.mkdir()
    assert run(dataset, [str(source), str(place / "out")]) == 1
    assert list(place.iterdir()) == []
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize("key", KEYS)
def test_an_unknown_label_is_named(key, tmp_path, capsys):
    official = LAYOUTS[key](tmp_path)
    shape = next(iter(official.cases.values()))[1].shape
    official.write(official.label_file, np.full(shape, 99, np.uint8))
    message = refused(script(key), official.source, tmp_path, capsys)
    assert "unknown label value 99" in message
    assert official.label_file.name in message


@pytest.mark.parametrize("key", KEYS)
def test_an_image_and_a_label_that_disagree_are_named(key, tmp_path, capsys):
    official = LAYOUTS[key](tmp_path)
    shape = next(iter(official.cases.values()))[1].shape
    official.write(official.label_file, np.zeros((shape[0] + 1, *shape[1:]), np.uint8))
    message = refused(script(key), official.source, tmp_path, capsys)
    assert official.label_file.name in message
    assert f"({shape[0] + 1}, {shape[1]}" in message


def shift(path: Path) -> None:
    """Move a volume by half a voxel along its first axis, in the header alone."""
    if path.suffix == ".mhd":
        image = sitk.ReadImage(str(path))
        image.SetOrigin(image.TransformContinuousIndexToPhysicalPoint((0.5, 0.0, 0.0)))
        sitk.WriteImage(image, str(path))
        return
    image = nib.load(path)
    moved = nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header)
    for grid, code in (("qform", 1), ("sform", 1)):
        affine = getattr(image.header, f"get_{grid}")()
        affine[:3, 3] += affine[:3, 0] / 2
        getattr(moved, f"set_{grid}")(affine, code=code if image.header[f"{grid}_code"] else 0)
    nib.save(moved, path)


@pytest.mark.parametrize("key", [key for key in KEYS if key != "busi"])  # pictures have no place
def test_an_image_and_a_label_in_different_places_are_named(key, tmp_path, capsys):
    official = LAYOUTS[key](tmp_path)
    shift(official.label_file)
    message = refused(script(key), official.source, tmp_path, capsys)
    assert official.label_file.name in message
    assert "mm apart" in message


@pytest.mark.parametrize(("key", "kind"), [(k, f) for k in KEYS for f in ("image_file", "label_file") if k != "kits19"])
def test_a_missing_file_is_named(key, kind, tmp_path, capsys):
    official = LAYOUTS[key](tmp_path)
    lost = getattr(official, kind)
    lost.unlink()
    message = refused(script(key), official.source, tmp_path, capsys)
    assert lost.name.split(".")[0].removesuffix("_0000") in message
    assert re.search("missing|has a mask, but no image|has an image, but no mask", message)


def halve(content: bytes) -> bytes:
    return content[: len(content) // 2]


def end_early(content: bytes) -> bytes:
    return content[:-4]


def flip_a_bit(content: bytes) -> bytes:
    """In the checksum at the end of a gzip file: all else is as it was, as after a fault that decompresses."""
    return content[:-8] + bytes([content[-8] ^ 1]) + content[-7:]


@pytest.mark.parametrize("kind", ["image_file", "label_file"])
@pytest.mark.parametrize(
    ("key", "damage"),
    [(key, halve) for key in KEYS]
    + [(key, damage) for key in KEYS if key not in ("promise12", "busi") for damage in (end_early, flip_a_bit)],
)
def test_a_damaged_file_is_named(key, kind, damage, tmp_path, capsys):
    official = LAYOUTS[key](tmp_path)
    file = getattr(official, kind)
    damaged = file.with_suffix(".raw") if file.suffix == ".mhd" else file
    damaged.write_bytes(damage(damaged.read_bytes()))
    message = refused(script(key), official.source, tmp_path, capsys)
    assert file.name in message
    assert "cannot be read" in message


@pytest.mark.parametrize("key", KEYS)
def test_a_wrong_folder_is_explained(key, tmp_path, capsys):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday/beach.jpg").write_bytes(b"sun")
    message = refused(script(key), tmp_path / "holiday", tmp_path, capsys)
    assert "does not look like the official download" in message
    assert "beach.jpg" in message
    assert script(key).layout in message


def test_two_copies_of_a_data_set_are_told_apart(tmp_path, capsys):
    official = LAYOUTS["mrbrains18"](tmp_path)
    shutil.copytree(official.source / "training", official.source / "test")
    message = refused(script("mrbrains18"), official.source, tmp_path, capsys)
    assert "holds the data set 2 times" in message
    assert run(script("mrbrains18"), [str(official.source / "training"), str(tmp_path / "out")]) == 0


def test_kits19_takes_a_case_without_segmentation_for_a_test_case_but_misses_an_image(tmp_path, capsys):
    official = LAYOUTS["kits19"](tmp_path)
    official.image_file.unlink()
    assert "case_00000/imaging.nii.gz: missing" in refused(script("kits19"), official.source, tmp_path, capsys)
    official.label_file.unlink()
    assert run(script("kits19"), [str(official.source), str(tmp_path / "out")]) == 0
    assert "6 of the official 210" in capsys.readouterr().out


def test_acdc_needs_its_info_file(tmp_path, capsys):
    official = LAYOUTS["acdc"](tmp_path)
    (official.image_file.parent / "Info.cfg").write_text("ED: 1\nGroup: DCM\n")
    (official.image_file.parents[1] / "patient002/Info.cfg").unlink()
    message = refused(script("acdc"), official.source, tmp_path, capsys)
    assert re.search(r"patient001/Info\.cfg: expected lines ED", message)
    assert re.search(r"patient002/Info\.cfg: missing", message)


def test_busi_keeps_the_same_picture_in_one_split(tmp_path):
    official = LAYOUTS["busi"](tmp_path)
    cases = {case.name: case for case in script("busi").find_cases(official.source)}
    assert cases["benign_1"].subject == cases["malignant_2"].subject
    assert cases["benign_1"].group == cases["malignant_2"].group == "benign+malignant"
    assert len({case.subject for case in cases.values()}) == len(cases) - 1
