"""No slice is passed over in silence: a broken file ends the command with its name, and gaps are told."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from synthetic_series import identifiers_in, ras_affine, rotation, write_series

from monai_calib.__main__ import main
from monai_calib.dicom import read_series, to_metatensor

AFFINE = ras_affine(rotation(1, 20), (1.0, 1.0, 2.0), (5.0, 6.0, 7.0))
STORED = np.arange(4 * 5 * 6).reshape(4, 5, 6)
SLOPES = np.ones(6)


def _write(folder: Path, change: Callable[[Dataset, int], None] | None = None, names: list[str] | None = None) -> str:
    return write_series(folder, STORED, AFFINE, slopes=SLOPES, change=change, names=names)


@pytest.mark.parametrize("emptied", [(0,), (5,), (2,), (1, 3, 5)])
@pytest.mark.parametrize("pattern", ["{}.dcm", "IM{:04d}", "{}"])
def test_an_emptied_file_ends_the_command_with_its_name(emptied, pattern, tmp_path, capsys):
    _write(tmp_path / "series", names=[pattern.format(k) for k in range(6)])
    for k in emptied:
        (tmp_path / "series" / pattern.format(k)).write_bytes(b"")
    assert main(["dicom", "to-nifti", str(tmp_path / "series"), str(tmp_path / "out.nii.gz")]) == 1
    said = capsys.readouterr().err
    assert repr(pattern.format(emptied[0])) in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out.nii.gz").exists()


@pytest.mark.parametrize("pattern", ["{}.dcm", "IM{:04d}"])
@pytest.mark.parametrize("left", [b"\0" * 400, b"\0" * 128 + b"DICM", b"half"])
def test_a_file_that_was_a_slice_is_named(pattern, left, tmp_path):
    _write(tmp_path, names=[pattern.format(k) for k in range(6)])
    (tmp_path / pattern.format(5)).write_bytes(left)
    with pytest.raises(ValueError, match=pattern.format(5)):
        read_series(tmp_path)


def test_what_is_no_slice_may_lie_beside_them(tmp_path):
    _write(tmp_path, names=[f"IM{k:04d}" for k in range(6)])
    for name in ("notes.txt", "DICOMDIR", ".DS_Store", "._IM0001"):
        (tmp_path / name).write_text("no image")
    structures = dcmread(tmp_path / "IM0000", stop_before_pixels=True)
    structures.SOPClassUID = structures.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    structures.SeriesInstanceUID = "1.2.3.4"
    for name in ("Rows", "Columns", "BitsAllocated"):
        del structures[name]
    structures.save_as(tmp_path / "RS0001.dcm")
    found = read_series(tmp_path, dcmread(tmp_path / "IM0000").SeriesInstanceUID)
    assert found.shape == STORED.shape
    assert not found.gaps


def test_every_second_slice_deleted_is_told(tmp_path, capsys):
    _write(tmp_path / "series")
    for k in (1, 3, 5):
        (tmp_path / "series" / f"{k:03d}.dcm").unlink()
    with pytest.warns(UserWarning, match=r"2 instance number\(s\) are missing between 1 and 5 \(1, 3, 5\)"):
        assert main(["dicom", "to-nifti", str(tmp_path / "series"), str(tmp_path / "out.nii.gz")]) == 0
    assert "are missing between 1 and 5" in capsys.readouterr().out


def _broken(keyword: str, value: object) -> Callable[[Dataset, int], None]:
    def change(image: Dataset, k: int) -> None:
        del image[keyword]
        if value is not None:
            setattr(image, keyword, value)

    return change


def _raw(keyword: str, value: bytes) -> Callable[[bytes], bytes]:
    """Replace an attribute's value in a written file by one that pydicom would not write."""

    def change(content: bytes) -> bytes:
        tag = {"RescaleSlope": b"\x28\x00\x53\x10DS", "PixelSpacing": b"\x28\x00\x30\x00DS"}[keyword]
        start = content.index(tag) + 6
        length = int.from_bytes(content[start : start + 2], "little")
        padded = value + b" " * (len(value) % 2)
        return content[:start] + len(padded).to_bytes(2, "little") + padded + content[start + 2 + length :]

    return change


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("RescaleSlope", "0"),
        ("PixelSpacing", [1.0, -1.0]),
        ("PixelSpacing", [1e-9, 1e-9]),
        ("BitsAllocated", 8),
        ("BitsAllocated", 32),
        ("PixelRepresentation", None),
        ("SamplesPerPixel", 0),
        ("Rows", 65535),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_header_that_cannot_be_true_is_refused(keyword, value, tmp_path):
    _write(tmp_path, _broken(keyword, value))
    with pytest.raises(ValueError, match=r"expected|cannot be read|in colour"):
        read_series(tmp_path)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("RescaleSlope", b"nan"), ("RescaleSlope", b"abc"), ("PixelSpacing", b"1"), ("PixelSpacing", b"a\\b")],
)
def test_numbers_that_are_none_name_the_attribute(keyword, value, tmp_path):
    _write(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(_raw(keyword, value)(path.read_bytes()))
    with pytest.raises(ValueError, match=keyword):
        read_series(tmp_path)


def test_a_file_that_stops_gdcm_is_named(tmp_path):
    def change(image: Dataset, k: int) -> None:
        if k == 3:
            image.SamplesPerPixel = 2

    _write(tmp_path, change)
    with pytest.raises(ValueError, match=r"003\.dcm|instance 4"):
        read_series(tmp_path)


def test_padding_after_the_pixels_is_no_fault(tmp_path):
    def change(image: Dataset, k: int) -> None:
        image.PixelData = image.PixelData + bytes(8)

    _write(tmp_path, change)
    np.testing.assert_array_equal(to_metatensor(read_series(tmp_path))[0].numpy(), STORED)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    _write(folder)
    return folder


@settings(max_examples=40, deadline=None)
@given(
    which=st.integers(0, 5),
    places=st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), min_size=1, max_size=15),
    cut=st.one_of(st.none(), st.integers(0, 1500)),
)
def test_random_bytes_in_a_header_lose_no_slice(whole, which, places, cut):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "series"
        shutil.copytree(whole, folder)
        path = folder / f"{which:03d}.dcm"
        content = bytearray(path.read_bytes())
        for place, value in places:
            content[place % len(content)] = value
        path.write_bytes(bytes(content[:cut]))
        try:
            series = read_series(folder)
            values = to_metatensor(series)
        except (ValueError, FileNotFoundError) as error:
            assert not identifiers_in(str(error))  # noqa: PT017  # either outcome is right
        else:
            assert series.shape == STORED.shape
            assert values.shape == (1, *STORED.shape)


@pytest.mark.real_data
@pytest.mark.parametrize("emptied", ["one", "every second"])
def test_a_real_series_with_emptied_files_is_refused(real_series, emptied, tmp_path):
    shutil.copytree(real_series, tmp_path / "series")
    files = sorted((tmp_path / "series").glob("*.dcm"))
    for path in files[-1:] if emptied == "one" else files[::2]:
        path.chmod(0o644)
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"the file '.*dcm' is empty"):
        read_series(tmp_path / "series")
