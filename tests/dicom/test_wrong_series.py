"""A folder that does not hold one regular volume is refused, with the series and the reason."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_series import identifiers_in, ras_affine, rotation, write_series

from monai_calib.dicom import read_series, to_metatensor

AFFINE = ras_affine(rotation(1, 20), (1.0, 1.0, 2.0), (5.0, 6.0, 7.0))
STORED = np.arange(4 * 5 * 6).reshape(4, 5, 6)
NORMAL = np.array([-1.0, -1.0, 1.0]) * (AFFINE[:3, 2] / 2)


def move(image, offset):
    image.ImagePositionPatient = [f"{a + b:.8f}"[:16] for a, b in zip(image.ImagePositionPatient, offset, strict=True)]


def localizer(image, k):
    if k == 3:
        image.ImageOrientationPatient = [1, 0, 0, 0, 0, 1]


def time_points(image, k):
    move(image, -NORMAL * 2 * (k % 2))  # pairs of slices share a position


def repeated(image, k):
    move(image, -NORMAL * 2 * (k == 3))


def uneven(image, k):
    move(image, NORMAL * 0.3 * (k == 3))


def tilted(image, k):
    move(image, np.array([0.0, 0.5 * k, 0.0]))


def beside(image, k):
    move(image, np.array([0.0, 0.5 * (k == 3), 0.0]))


def smaller(image, k):
    if k == 3:
        image.Rows, image.PixelData = 3, image.PixelData[: 2 * 4 * 3]


def colour(image, k):
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.PixelData = image.PixelData * 3


def frames(image, k):
    image.NumberOfFrames = 2
    image.PixelData = image.PixelData * 2


def projection(image, k):
    del image.ImagePositionPatient


def other_patient(image, k):
    if k == 3:
        image.PatientID = "ID-OTHER"


def other_frame(image, k):
    if k == 3:
        image.FrameOfReferenceUID = "1.2.3"


def other_spacing(image, k):
    if k == 3:
        image.PixelSpacing = [1.0, 1.1]


def crooked(image, k):
    image.ImageOrientationPatient = [1, 0, 0, 0.1, 0.995, 0]


CASES = [
    (localizer, "mixes 2 orientations of slices: 5 along .* 1 along"),
    (time_points, "4D: 2 images at each of 3 positions"),
    (repeated, "2 images at the position"),
    (uneven, r"unevenly spaced slices: 1\.700 to 2\.300 mm"),
    (tilted, r"sheared: .* degrees off their normal \(gantry tilt\)"),
    (beside, r"a slice \(instance 4, '003\.dcm'\) lies 0\.50 mm from where"),
    (smaller, "different size in pixels"),
    (colour, "in colour"),
    (frames, "multi-frame object"),
    (projection, "instance ., '.*dcm' has no ImagePositionPatient"),
    (other_patient, "slices of several patients"),
    (other_frame, "different frame of reference"),
    (other_spacing, "different pixel spacing"),
    (crooked, "not two perpendicular unit vectors"),
]


@pytest.mark.parametrize(("change", "message"), CASES, ids=[change.__name__ for change, _ in CASES])
def test_irregular_series_are_refused(change, message, tmp_path):
    uid = write_series(tmp_path, STORED, AFFINE, change=change)
    with pytest.raises(ValueError, match=message) as error:
        read_series(tmp_path)
    assert uid in str(error.value)
    assert not identifiers_in(str(error.value))


@pytest.mark.parametrize(("lost", "count"), [((2,), 1), ((1, 2), 2), ((1, 3), 2)])
def test_missing_slices_are_counted_and_placed(lost, count, tmp_path):
    uid = write_series(tmp_path, STORED, AFFINE)
    for k in lost:
        (tmp_path / f"{k:03d}.dcm").unlink()
    with pytest.raises(
        ValueError, match=rf"{uid} lacks {count} slices?: .* between {lost[0]}, '00{lost[0] - 1}\.dcm' and"
    ):
        read_series(tmp_path)


def test_positions_rounded_by_the_scanner_are_no_gaps(tmp_path):
    def rounded(image, k):
        image.ImagePositionPatient = [f"{float(x):.2f}" for x in image.ImagePositionPatient]

    write_series(tmp_path, STORED, ras_affine(rotation(1, 20), (0.4, 0.4, 0.3), (5, 6, 7)), change=rounded)
    assert read_series(tmp_path).shape == (4, 5, 6)


def test_one_slice_is_no_volume(tmp_path):
    write_series(tmp_path, STORED[:, :, :1], AFFINE)
    with pytest.raises(ValueError, match="one slice"):
        read_series(tmp_path)


def test_of_several_series_one_is_chosen(tmp_path):
    first, second = (
        write_series(tmp_path, STORED + 1000 * k, AFFINE, names=[f"{k}_{n}" for n in range(6)]) for k in (0, 1)
    )
    with pytest.raises(ValueError, match="holds 2 series") as error:
        read_series(tmp_path)
    assert first in str(error.value)
    assert f"{second}  MR, 6 files" in str(error.value)
    assert not identifiers_in(str(error.value))
    chosen = read_series(tmp_path, second)
    assert chosen.uid == second
    np.testing.assert_array_equal(to_metatensor(chosen)[0].numpy(), STORED + 1000)
    with pytest.raises(FileNotFoundError, match=r"no series 1\.2\.3, but:\n.*MR, 6 files"):
        read_series(tmp_path, "1.2.3")


def test_folders_without_a_series(tmp_path, capfd):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(FileNotFoundError, match="holds no DICOM series"):
        read_series(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_series(tmp_path / "missing")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("end", [0, 2, 5])
def test_a_truncated_slice_is_named_also_at_the_end_of_the_volume(end, tmp_path):
    uid = write_series(tmp_path, STORED, AFFINE)
    path = tmp_path / f"{end:03d}.dcm"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=rf"series {uid}: the file '{path.name}' belongs to it but cannot be read"):
        read_series(tmp_path)


def test_a_slice_that_vanishes_is_told(tmp_path):
    uid = write_series(tmp_path, STORED, AFFINE)
    series = read_series(tmp_path)
    (tmp_path / "005.dcm").unlink()
    with pytest.raises(ValueError, match=f"series {uid}: the pixels cannot be read"):
        to_metatensor(series)
