"""A bundle's loader refuses what does not belong together, and names the files."""

from __future__ import annotations

import gzip
import os
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from monai_calib.datasets.case import Place, case_name, check_geometry, spacing_of, unique_names
from monai_calib.transforms import LoadCased

SHAPE = (12, 10, 6)
OWN = np.diag([-0.5, -0.5, 3.0, 1.0])


def save(path: Path, array: np.ndarray, affine: np.ndarray = OWN) -> str:
    image = nib.Nifti1Image(array, affine)
    nib.save(image, path)
    return str(path)


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, str]:
    rng = np.random.default_rng(0)
    return {
        "image": save(tmp_path / "scan.nii.gz", rng.normal(size=SHAPE).astype(np.float32)),
        "label": save(tmp_path / "scan_seg.nii.gz", rng.integers(0, 3, SHAPE).astype(np.uint8)),
    }


def load(pair: dict[str, str], **options: str) -> dict[str, torch.Tensor]:
    return LoadCased(keys=("image", "label"), num_classes=3, **options)(pair)


def moved(by: list[float]) -> np.ndarray:
    affine = OWN.copy()
    affine[:3, 3] += by
    return affine


@pytest.mark.parametrize(
    ("affine", "told"),
    [
        (np.eye(4), "voxel sizes"),
        (moved([50, 0, 0]), "up to 50 mm apart, 1e"),
        (OWN * np.array([[-1, 1, 1, 1]]).T, "axes RPS and LPS"),
        (np.diag([-0.5, -0.5, 1.0, 1.0]), "voxel sizes"),
    ],
)
def test_a_label_that_lies_elsewhere_is_refused_and_both_files_are_named(
    pair: dict[str, str], affine: np.ndarray, told: str
) -> None:
    values = np.asanyarray(nib.load(pair["label"]).dataobj)
    save(Path(pair["label"]), values, affine)
    with pytest.raises(ValueError, match=rf"scan_seg\.nii\.gz: .*scan\.nii\.gz.*{told}.*label_from_image"):
        load(pair)
    case = load(pair, geometry="label_from_image")
    assert torch.equal(case["label"].affine, case["image"].affine)
    assert np.array_equal(case["label"][0].numpy(), values)


def test_up_to_half_a_voxel_is_rounding_and_more_than_a_tenth_is_said(pair: dict[str, str]) -> None:
    values = np.asanyarray(nib.load(pair["label"]).dataobj)
    save(Path(pair["label"]), values, moved([0.04, 0, 0]))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*headers put")
        load(pair)
    save(Path(pair["label"]), values, moved([0.2, 0, 0]))
    with pytest.warns(UserWarning, match="up to 0.2 mm apart, 0.4 voxels"):
        case = load(pair)
    assert torch.equal(case["label"].affine, case["image"].affine)


def test_like_is_compared_with_like() -> None:
    """A qform of float32 quaternions may drift from the sform of the same scan; another file's sform may not."""
    drifted = moved([0.3, 0, 0])
    image = Place(OWN, sform=OWN, qform=drifted)
    assert check_geometry(image, Place(drifted, qform=drifted), SHAPE, "a", "b") == 0
    with pytest.raises(ValueError, match=r"0\.6 voxels"):
        check_geometry(image, Place(drifted, sform=drifted), SHAPE, "a", "b")


@pytest.mark.parametrize("kind", ["<u2", ">u2", ">i4", "<u4", "<u8", "f4", ">f8"])
def test_labels_of_every_type_are_the_same_label(pair: dict[str, str], kind: str) -> None:
    values = np.asanyarray(nib.load(pair["label"]).dataobj)
    expected = load(pair)["label"]
    header = nib.Nifti1Header(endianness=">" if kind.startswith(">") else "<")
    header.set_data_dtype(kind)
    nib.save(nib.Nifti1Image(values.astype(kind), OWN, header), pair["label"])
    assert torch.equal(load(pair)["label"].as_tensor().float(), expected.as_tensor().float())


@pytest.mark.parametrize("value", [0.9999, 7.0, -1.0, 255.0])
def test_a_value_that_is_no_class_is_named_with_its_file(pair: dict[str, str], value: float) -> None:
    values = np.asanyarray(nib.load(pair["label"]).dataobj).astype(np.float32)
    values[0, 0, 0] = value
    save(Path(pair["label"]), values)
    with pytest.raises(ValueError, match=r"scan_seg\.nii\.gz.*whole class numbers from 0 to 2, got"):
        load(pair)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_that_is_not_finite_is_named(pair: dict[str, str], value: float) -> None:
    values = np.zeros(SHAPE, np.float32)
    values[1, 2, 3] = value
    save(Path(pair["image"]), values)
    with pytest.raises(ValueError, match=r"scan\.nii\.gz.*not finite"):
        load(pair)


def test_two_axes_are_a_volume_of_one_slice(pair: dict[str, str]) -> None:
    save(Path(pair["image"]), np.zeros(SHAPE[:2], np.float32))
    save(Path(pair["label"]), np.zeros((*SHAPE[:2], 1), np.uint8))
    case = load(pair)
    assert case["image"].shape == case["label"].shape == (1, *SHAPE[:2], 1)


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(("kind", "called"), [(np.complex64, "complex"), (RGB, "colours")])
def test_complex_numbers_and_colours_are_named(pair: dict[str, str], kind: Any, called: str) -> None:
    save(Path(pair["image"]), np.zeros(SHAPE, kind))
    with pytest.raises(ValueError, match=rf"scan\.nii\.gz: holds {called}"):
        load(pair)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_voxel_size_that_is_not_finite_is_named(pair: dict[str, str], value: float) -> None:
    image = nib.Nifti1Image(np.zeros(SHAPE, np.float32), OWN)
    nib.save(image, pair["image"])
    content = bytearray(gzip.decompress(Path(pair["image"]).read_bytes()))
    content[80:84] = np.float32(value).tobytes()
    Path(pair["image"]).write_bytes(gzip.compress(content))
    with pytest.raises((ValueError, RuntimeError), match=r"scan\.nii\.gz"):
        load(pair)


@pytest.mark.parametrize("cut", [1, 4, 9, 200])
def test_an_archive_cut_by_a_few_bytes_is_refused(pair: dict[str, str], cut: int) -> None:
    path = Path(pair["image"])
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(RuntimeError, match=r"cannot read .*scan\.nii\.gz"):
        load(pair)


def test_a_wrong_checksum_is_refused(pair: dict[str, str]) -> None:
    path = Path(pair["label"])
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(gzip.BadGzipFile), gzip.open(path) as stream:
        stream.read()
    with pytest.raises(RuntimeError, match=r"scan_seg\.nii\.gz"):
        load(pair)


def test_names_come_from_the_list_then_the_file_then_its_folder() -> None:
    assert case_name("07", "a/scan.nii.gz") == "07"
    assert case_name(None, "a/scan.nii.gz") == "scan"
    assert unique_names(["a/scan.nii.gz", "b/scan.nii.gz", "c/x.nii"]) == ["a_scan", "b_scan", "x"]


def test_the_voxel_size_is_read_in_one_way() -> None:
    turned = np.array([[0, -2.0, 0, 5], [0.5, 0, 0, 1], [0, 0, 3, 2], [0, 0, 0, 1]])
    assert spacing_of(turned) == (0.5, 2.0, 3.0)
    assert spacing_of(torch.zeros(3, 4, 5)) is None


def test_pictures_have_no_place_and_palettes_are_indices(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    mask = Image.fromarray(values, "P")
    mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    mask.save(tmp_path / "mask.png")
    Image.fromarray(values * 50).save(tmp_path / "scan.png")
    case = load({"image": str(tmp_path / "scan.png"), "label": str(tmp_path / "mask.png")})
    assert case["image"].shape == case["label"].shape == (1, 3, 2)
    assert np.array_equal(case["label"][0].numpy(), values.T)
    mask.convert("RGB").save(tmp_path / "colours.png")
    with pytest.raises(ValueError, match=r"colours\.png.*got 3 channels"):
        load({"image": str(tmp_path / "scan.png"), "label": str(tmp_path / "colours.png")})


def test_a_picture_beside_a_volume_of_one_slice_is_one_too(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((10, 12), np.uint8)).save(tmp_path / "scan.png")
    label = save(tmp_path / "label.nii.gz", np.ones((12, 10, 1), np.uint8))
    case = load({"image": str(tmp_path / "scan.png"), "label": label})
    assert case["image"].shape == case["label"].shape == (1, 12, 10, 1)
    assert torch.equal(case["image"].affine, case["label"].affine)


def test_several_files_are_channels_of_one_place(tmp_path: Path, pair: dict[str, str]) -> None:
    second = save(tmp_path / "t2.nii.gz", np.ones(SHAPE, np.float32))
    case = load({**pair, "image": [pair["image"], second]})
    assert case["image"].shape == (2, *SHAPE)
    assert torch.equal(case["image"][:1].as_tensor(), load(pair)["image"].as_tensor())
    assert bool((case["image"][1] == 1).all())
    save(Path(second), np.ones(SHAPE, np.float32), moved([0, 0, 3]))
    with pytest.raises(ValueError, match=r"t2\.nii\.gz: .*scan\.nii\.gz"):
        load({**pair, "image": [pair["image"], second]})


def test_a_header_without_a_usable_place_is_named(pair: dict[str, str]) -> None:
    image = nib.Nifti1Image(np.zeros(SHAPE, np.float32), OWN)
    nib.save(image, pair["image"])
    content = bytearray(gzip.decompress(Path(pair["image"]).read_bytes()))
    content[312:328] = bytes(16)  # the sform's third row
    Path(pair["image"]).write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=r"scan\.nii\.gz: the header's voxel size or orientation is not usable"):
        load(pair)


REAL = Path(os.environ.get("MONAI_CALIB_DATA", Path(__file__).resolve().parents[2].parent / "shared/data"))
LABELS = {"Task04_Hippocampus": "labelsTr/hippocampus_*.nii.gz", "ACDC": "training/*/*_gt.nii.gz"}


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "count", "classes"), [("Task04_Hippocampus", 197, 3), ("ACDC", 160, 4)])
def test_every_real_pair_is_one(name: str, count: int, classes: int) -> None:
    labels = sorted((REAL / name).glob(LABELS[name]))
    if not labels:
        pytest.skip("no real volumes")
    assert len(labels) == count
    read = LoadCased(keys=("image", "label"), num_classes=classes)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for label in labels:
            image = Path(str(label).replace("labelsTr", "imagesTr").replace("_gt", ""))
            assert image != label
            case = read({"image": str(image), "label": str(label)})
            assert case["image"].shape == case["label"].shape
