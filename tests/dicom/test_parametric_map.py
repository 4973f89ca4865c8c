"""Parametric maps are read back by pydicom and, independently, by highdicom, in every voxel bit for bit."""

from __future__ import annotations

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread
from synthetic_series import IDENTIFIERS, LPS_TO_RAS, SECRETS, identifiers_in, write_series

from monai_calib.__main__ import main
from monai_calib.dicom import (
    CONFIDENCE_MAP,
    name_structures,
    parametric_map,
    probability_of,
    read_parametric_map,
    read_series,
    write_nifti,
    write_parametric_map,
)

STRUCTURES = name_structures({1: "anterior", 2: "posterior", 4: "gizzard"}, context="Hippocampus MRI")


@pytest.fixture(scope="module")
def values(oblique):
    values = np.random.default_rng(3).random(oblique.shape, dtype=np.float32)
    values[:, :, 1] = 0  # a slice of zeros has its frame as well
    values[0, 0, 0] = 1
    return values


def in_space(path, shape, affine):
    """With pydicom alone: each frame's real-world values put where its own position says, on the grid of ``affine``."""
    image = dcmread(path)
    shared = image.SharedFunctionalGroupsSequence[0]
    mapping = shared.RealWorldValueMappingSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    placed = np.full(shape, np.nan)
    stored = np.frombuffer(image.FloatPixelData, "<f4").reshape(-1, image.Rows, image.Columns)
    for frame, pixels in zip(image.PerFrameFunctionalGroupsSequence, stored, strict=True):
        lps = np.eye(4)
        lps[:3, 0], lps[:3, 1] = cosines[0] * between_columns, cosines[1] * between_rows
        lps[:3, 3] = frame.PlanePositionSequence[0].ImagePositionPatient
        steps = np.linalg.inv(affine) @ LPS_TO_RAS @ lps
        np.testing.assert_allclose(steps[:2, :2], np.eye(2), atol=1e-5)
        np.testing.assert_allclose(steps[:2, 3], 0, atol=1e-4)
        k = steps[2, 3]
        assert abs(k - round(k)) < 1e-4
        placed[:, :, round(k)] = pixels.T * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept
    return placed


def test_values_come_back_bit_for_bit_and_in_their_place(oblique, values, tmp_path):
    path = write_parametric_map(oblique, values, CONFIDENCE_MAP, tmp_path / "confidence.dcm")
    np.testing.assert_array_equal(read_parametric_map(path, oblique), values)
    np.testing.assert_array_equal(in_space(path, oblique.shape, oblique.affine), values)
    frames = hd.pm.ParametricMap.from_dataset(dcmread(path)).get_frames(apply_real_world_transform=True)
    assert sorted(frames.ravel()) == sorted(values.ravel().astype(frames.dtype))


def test_the_map_says_what_its_numbers_are(oblique, values, tmp_path):
    image = dcmread(write_parametric_map(oblique, values, probability_of(STRUCTURES[1]), tmp_path / "a.dcm"))
    (mapping,) = image.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    unit = mapping.MeasurementUnitsCodeSequence[0]
    assert (unit.CodeValue, unit.CodingSchemeDesignator) == ("1", "UCUM")
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    first, last = "DoubleFloatRealWorldValueFirstValueMapped", "DoubleFloatRealWorldValueLastValueMapped"
    assert (mapping[first].value, mapping[last].value) == (0, 1)
    assert mapping.LUTExplanation == "Probability of anterior"
    named = {
        one.ConceptNameCodeSequence[0].CodeMeaning: one.ConceptCodeSequence[0].CodeMeaning
        for one in mapping.QuantityDefinitionSequence
    }
    assert named == {
        "Quantity": "Probability of the class",
        "Finding Site": "Hippocampus",
        "Topographical modifier": "Anterior",
    }
    assert "PixelData" not in image
    assert image.SOPClassUID.name == "Parametric Map Storage"


def test_the_map_belongs_to_the_series(oblique, values, tmp_path):
    path = write_parametric_map(oblique, values, CONFIDENCE_MAP, tmp_path / "confidence.dcm")
    image, source = dcmread(path), dcmread(oblique.files[0], stop_before_pixels=True)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", *IDENTIFIERS):
        assert image[keyword].value == source[keyword].value
    assert image.SeriesInstanceUID != source.SeriesInstanceUID
    assert image.SeriesNumber == 703
    positions = {header.SOPInstanceUID: header.ImagePositionPatient for header in oblique.headers}
    cited = [
        frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for frame in image.PerFrameFunctionalGroupsSequence
    ]
    assert sorted(cited) == sorted(positions)
    for uid, frame in zip(cited, image.PerFrameFunctionalGroupsSequence, strict=True):
        assert frame.PlanePositionSequence[0].ImagePositionPatient == positions[uid]
    assert not [value for value in SECRETS.values() if value.encode() in path.read_bytes()]


def test_nothing_is_written_of_wrong_input(oblique, values, tmp_path):
    target = tmp_path / "map.dcm"
    with pytest.raises(ValueError, match="expected the same grid"):
        write_parametric_map(oblique, values[:-1], CONFIDENCE_MAP, target)
    for wrong, told in ((100 * values, "percent"), (np.where(values == 1, np.nan, values), "nan")):
        with pytest.raises(ValueError, match=told):
            write_parametric_map(oblique, wrong, CONFIDENCE_MAP, target)
    assert list(tmp_path.iterdir()) == []


def test_a_map_that_reads_back_otherwise_is_not_kept(oblique, values, tmp_path, monkeypatch):
    true_reading = parametric_map.read_parametric_map

    def one_voxel_off(path, series):
        read = true_reading(path, series)
        read[2, 3, 4] = np.nextafter(read[2, 3, 4], np.float32(2))
        return read

    monkeypatch.setattr(parametric_map, "read_parametric_map", one_voxel_off)
    with pytest.raises(ValueError, match="differs in 1 voxel; it was not kept"):
        write_parametric_map(oblique, values, CONFIDENCE_MAP, tmp_path / "map.dcm")
    assert list(tmp_path.iterdir()) == []


def test_a_map_of_other_images_or_units_is_refused(oblique, values, tmp_path):
    path = write_parametric_map(oblique, values, CONFIDENCE_MAP, tmp_path / "map.dcm")
    write_series(tmp_path / "other", np.zeros(oblique.shape), oblique.affine)
    with pytest.raises(ValueError, match="another StudyInstanceUID"):
        read_parametric_map(path, read_series(tmp_path / "other"))
    with pytest.raises(ValueError, match="expected a DICOM Parametric Map, got the SOP class"):
        read_parametric_map(oblique.files[0], oblique)

    def shared(image):
        return image.SharedFunctionalGroupsSequence[0]

    def percent(image):
        unit = shared(image).RealWorldValueMappingSequence[0].MeasurementUnitsCodeSequence[0]
        unit.CodeValue, unit.CodeMeaning = "%", "Percent"

    def moved(image):
        image.PerFrameFunctionalGroupsSequence[4].PlanePositionSequence[0].ImagePositionPatient = [0, 0, 0]

    def halved(image):
        shared(image).RealWorldValueMappingSequence[0].RealWorldValueSlope = 0.5

    for edit, told in ((percent, "got 'Percent'"), (moved, "places a frame at"), (halved, None)):
        image = dcmread(path)
        edit(image)
        image.save_as(tmp_path / "edited.dcm")
        if told is None:
            np.testing.assert_array_equal(read_parametric_map(tmp_path / "edited.dcm", oblique), values / 2)
            continue
        with pytest.raises(ValueError, match=told):
            read_parametric_map(tmp_path / "edited.dcm", oblique)


def test_maps_in_nifti_become_parametric_maps(oblique_folder, oblique, tmp_path, capfd):
    shares = np.random.default_rng(8).dirichlet([1, 1, 1], oblique.shape).astype(np.float32)
    percent = np.rint(100 * shares.max(-1)).astype(np.uint8)
    for name, array in (("prob", shares), ("confidence", percent)):
        nib.save(nib.Nifti1Image(array, oblique.affine), tmp_path / f"{name}.nii.gz")
    (tmp_path / "labels.json").write_text('{"1": "liver", "2": "gizzard"}')
    command = ["dicom", "to-pm", str(oblique_folder)]
    labels = ["--labels", str(tmp_path / "labels.json")]
    output = tmp_path / "out" / "map.dcm"
    assert main([*command, str(tmp_path / "confidence.nii.gz"), str(output)]) == 0
    assert main([*command, str(tmp_path / "prob.nii.gz"), str(output), *labels]) == 0
    assert sorted(path.name for path in output.parent.iterdir()) == ["map.dcm", "map_1.dcm", "map_2.dcm"]
    np.testing.assert_array_equal(read_parametric_map(output, oblique), (percent / 100).astype(np.float32))
    for label in (1, 2):
        path = output.with_name(f"map_{label}.dcm")
        np.testing.assert_array_equal(read_parametric_map(path, oblique), shares[..., label])
    said = capfd.readouterr()
    assert "No code is known for 'gizzard'" in said.out
    assert not identifiers_in(said.out + said.err)
    (tmp_path / "labels.json").write_text('{"3": "liver"}')
    assert main([*command, str(tmp_path / "prob.nii.gz"), str(output), *labels]) == 1
    assert "expected at least 4 channels" in capfd.readouterr().err


@pytest.mark.real_data
def test_the_real_series_round_trip(real_series, tmp_path):
    series = read_series(real_series)
    affine = nib.load(write_nifti(series, tmp_path / "volume.nii.gz")).affine
    values = np.random.default_rng(5).random(series.shape, dtype=np.float32)
    path = write_parametric_map(series, values, probability_of(STRUCTURES[2]), tmp_path / "map.dcm")
    np.testing.assert_array_equal(read_parametric_map(path, series), values)
    np.testing.assert_array_equal(in_space(path, series.shape, affine), values)
