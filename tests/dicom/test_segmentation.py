"""What is written as DICOM SEG is read back by highdicom and, independently, by pydicom, voxel by voxel."""

from __future__ import annotations

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread
from synthetic_series import IDENTIFIERS, LPS_TO_RAS, SECRETS, write_series

from monai_calib.dicom import (
    name_structures,
    read_segmentation,
    read_series,
    write_confidence,
    write_labels,
    write_probabilities,
)
from monai_calib.dicom.readback import check_written

STRUCTURES = name_structures({0: "background", 1: "anterior", 2: "posterior", 4: "liver"}, context="Hippocampus MRI")


@pytest.fixture(scope="module")
def labels(oblique):
    labels = np.random.default_rng(2).choice([0, 1, 2, 4], oblique.shape)
    labels[:, :, 0] = 0  # a slice without any structure
    labels[labels == 2] *= np.arange(oblique.shape[2])[np.where(labels == 2)[2]] > 2
    return labels


@pytest.fixture(scope="module")
def probabilities(oblique):
    shares = np.random.default_rng(3).dirichlet([0.3] * 4, oblique.shape)
    return np.moveaxis(shares, -1, 0)[1:].astype(np.float32)


def frames_in_space(path):
    """With pydicom alone: (segment number, RAS affine of the frame's pixels, pixels as (columns, rows))."""
    image = dcmread(path)
    shared = image.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    for frame, pixels in zip(image.PerFrameFunctionalGroupsSequence, image.pixel_array, strict=True):
        lps = np.eye(4)
        lps[:3, 0], lps[:3, 1] = cosines[0] * between_columns, cosines[1] * between_rows
        lps[:3, 3] = frame.PlanePositionSequence[0].ImagePositionPatient
        yield frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber, LPS_TO_RAS @ lps, pixels.T


def assembled(path, shape, affine):
    """The segments on the grid of ``affine``, each frame put where its own position says: ``(segments, *shape)``."""
    segments = np.zeros((len(dcmread(path).SegmentSequence), *shape))
    for number, placed, pixels in frames_in_space(path):
        steps = np.linalg.inv(affine) @ placed
        np.testing.assert_allclose(steps[:2, :2], np.eye(2), atol=1e-5)
        np.testing.assert_allclose(steps[:2, 3], 0, atol=1e-4)
        k = steps[2, 3]
        assert abs(k - round(k)) < 1e-4
        segments[number - 1, :, :, round(k)] = pixels
    return segments


@pytest.mark.parametrize("omit", [False, True])
def test_labels_come_back_voxel_by_voxel(oblique, labels, tmp_path, omit):
    path = write_labels(oblique, labels, STRUCTURES, tmp_path / "seg.dcm", omit_empty_frames=omit)
    expected = np.stack([labels == label for label in (1, 2, 4)])
    np.testing.assert_array_equal(read_segmentation(path, oblique), expected)
    np.testing.assert_array_equal(assembled(path, oblique.shape, oblique.affine), expected)
    segmentation = hd.seg.segread(path)
    assert segmentation.segmentation_type.value == "BINARY"
    assert segmentation.number_of_frames == (expected.any(axis=(1, 2)).sum() if omit else 3 * 6)
    if not omit:
        volume = segmentation.get_volume(combine_segments=False)
        # highdicom's axes are slice, row, column in LPS; its volume may run either way along the slices
        ours = LPS_TO_RAS @ oblique.affine
        corners = np.array([(0, 0, 0, 1), (5, 8, 6, 1)])
        theirs = (volume.affine @ corners.T).T
        forth = (ours @ corners[:, [2, 1, 0, 3]].T).T
        back = (ours @ (corners[:, [2, 1, 0, 3]] * [1, 1, -1, 1] + [0, 0, 5, 0]).T).T
        assert min(np.abs(theirs - forth).max(), np.abs(theirs - back).max()) < 1e-4


def test_probabilities_come_back_within_half_a_step(oblique, probabilities, tmp_path):
    structures = list(STRUCTURES.values())
    path = write_probabilities(oblique, probabilities, structures, tmp_path / "prob.dcm")
    image = dcmread(path)
    assert (image.SegmentationType, image.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    assert image.MaximumFractionalValue == 255
    for read in (
        read_segmentation(path, oblique),
        assembled(path, oblique.shape, oblique.affine) / image.MaximumFractionalValue,
    ):
        assert np.abs(read - probabilities).max() <= 0.5001 / 255
    assert np.abs(read - probabilities).max() > 0.4 / 255  # the random values do meet the bound


def test_confidence_in_percent_comes_back_exactly(oblique, tmp_path):
    percent = np.random.default_rng(4).integers(0, 101, oblique.shape)
    path = write_confidence(oblique, percent / 100, tmp_path / "confidence.dcm")
    np.testing.assert_array_equal(np.rint(100 * read_segmentation(path, oblique)[0]), percent)
    (segment,) = dcmread(path).SegmentSequence
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator.startswith("99")


def test_the_segmentation_belongs_to_the_series(oblique, labels, tmp_path):
    image = dcmread(write_labels(oblique, labels, STRUCTURES, tmp_path / "seg.dcm"))
    source = dcmread(oblique.files[0], stop_before_pixels=True)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName", "StudyDate"):
        assert image[keyword].value == source[keyword].value
    assert image.SeriesInstanceUID != source.SeriesInstanceUID
    assert image.SeriesNumber == 701
    (referenced,) = image.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == oblique.uid
    assert {one.ReferencedSOPInstanceUID for one in referenced.ReferencedInstanceSequence} == set(
        oblique.sop_instance_uids
    )
    positions = {header.SOPInstanceUID: header.ImagePositionPatient for header in oblique.headers}
    for frame in image.PerFrameFunctionalGroupsSequence:
        cited = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert frame.PlanePositionSequence[0].ImagePositionPatient == positions[cited]


def test_segments_say_what_they_are(oblique, labels, tmp_path):
    segments = dcmread(write_labels(oblique, labels, STRUCTURES, tmp_path / "seg.dcm")).SegmentSequence
    types = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in segments]
    assert [segment.SegmentLabel for segment in segments] == ["anterior", "posterior", "liver"]
    assert [(kind.CodeValue, kind.CodingSchemeDesignator) for kind in types] == [
        ("5366008", "SCT"),
        ("5366008", "SCT"),
        ("10200004", "SCT"),
    ]
    assert [kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning for kind in types[:2]] == [
        "Anterior",
        "Posterior",
    ]
    assert "SegmentedPropertyTypeModifierCodeSequence" not in types[2]
    assert {segment.SegmentAlgorithmType for segment in segments} == {"AUTOMATIC"}


def test_only_what_the_standard_demands_of_the_patient_is_carried(oblique, labels, tmp_path):
    path = write_labels(oblique, labels, STRUCTURES, tmp_path / "seg.dcm")
    image = dcmread(path)
    assert {keyword: str(image[keyword].value) for keyword in IDENTIFIERS} == IDENTIFIERS
    assert not set(SECRETS) & {element.keyword for element in image.iterall()}
    content = path.read_bytes()
    assert not [value for value in SECRETS.values() if value.encode() in content]


def test_a_series_without_optional_identifiers_is_written(labels, tmp_path):
    def sparse(image, k):
        for keyword in ("PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber", "SeriesNumber", *SECRETS):
            delattr(image, keyword)

    write_series(tmp_path / "series", np.zeros(labels.shape), np.diag([1.0, 1, 2, 1]), change=sparse)
    series = read_series(tmp_path / "series")
    image = dcmread(write_labels(series, labels, STRUCTURES, tmp_path / "seg.dcm"))
    assert image.PatientBirthDate == ""
    assert image.PatientID == IDENTIFIERS["PatientID"]


def test_nothing_is_written_of_wrong_input(oblique, labels, probabilities, tmp_path):
    target, structures = tmp_path / "seg.dcm", list(STRUCTURES.values())
    with pytest.raises(ValueError, match=r"hold \[4\], which have no structure"):
        write_labels(oblique, labels, {k: v for k, v in STRUCTURES.items() if k != 4}, target)
    with pytest.raises(ValueError, match=r"hold \[0\.5\]; expected whole numbers"):
        write_labels(oblique, np.full(oblique.shape, 0.5), STRUCTURES, target)
    with pytest.raises(ValueError, match="expected the same grid"):
        write_labels(oblique, labels[:-1], STRUCTURES, target)
    with pytest.raises(ValueError, match="expected at least one label"):
        write_labels(oblique, np.zeros(oblique.shape), {}, target)
    with pytest.raises(ValueError, match=r"lie in .*, 100\.0\]; expected \[0, 1\]"):
        write_confidence(oblique, np.full(oblique.shape, 100.0), target)
    broken = probabilities.copy()
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="nan"):
        write_probabilities(oblique, broken, structures, target)
    with pytest.raises(ValueError, match=r"expected \(3 structures, columns"):
        write_probabilities(oblique, probabilities[:2], structures, target)
    assert list(tmp_path.iterdir()) == []


def test_the_check_after_writing_sees_one_wrong_voxel(oblique, labels, tmp_path):
    path = write_labels(oblique, labels, STRUCTURES, tmp_path / "seg.dcm")
    masks = np.stack([labels == label for label in (1, 2, 4)])
    check_written(path, oblique, masks, 0.0)
    masks[1, 3, 4, 5] ^= True
    with pytest.raises(ValueError, match=r"differs by 1\.0"):
        check_written(path, oblique, masks, 0.0)
    with pytest.raises(ValueError, match="has the axes"):
        check_written(path, oblique, masks[:2], 0.0)


def test_a_segmentation_of_other_images_is_refused(oblique, labels, tmp_path):
    path = write_labels(oblique, labels, STRUCTURES, tmp_path / "seg.dcm")
    write_series(tmp_path / "other", np.zeros(oblique.shape), oblique.affine)
    with pytest.raises(ValueError, match="another StudyInstanceUID"):
        read_segmentation(path, read_series(tmp_path / "other"))
    with pytest.raises(ValueError, match="cannot read"):
        read_segmentation(oblique.files[0], oblique)
    for edit, message in (
        (lambda image: setattr(frame_of(image), "ImagePositionPatient", [0, 0, 0]), "places a frame at"),
        (lambda image: setattr(plane_of(image), "ImageOrientationPatient", [1, 0, 0, 0, 1, 0]), "oriented or spaced"),
    ):
        image = dcmread(path)
        edit(image)
        image.save_as(tmp_path / "moved.dcm")
        with pytest.raises(ValueError, match=message):
            read_segmentation(tmp_path / "moved.dcm", oblique)


def frame_of(image):
    return image.PerFrameFunctionalGroupsSequence[4].PlanePositionSequence[0]


def plane_of(image):
    return image.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]


@pytest.mark.real_data
def test_the_real_series_round_trip(real_series, tmp_path):
    series = read_series(real_series)
    affine = nib.load(_nifti(series, tmp_path)).affine
    labels = np.random.default_rng(5).integers(0, 3, series.shape)
    structures = {label: STRUCTURES[label] for label in (1, 2)}
    path = write_labels(series, labels, structures, tmp_path / "seg.dcm")
    np.testing.assert_array_equal(
        assembled(path, series.shape, affine), np.stack([labels == label for label in (1, 2)])
    )


def _nifti(series, folder):
    from monai_calib.dicom import write_nifti

    return write_nifti(series, folder / "volume.nii.gz")
