"""The volume lies where the slices lie, by the formula, by SimpleITK and by nibabel, with every value in its place."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # its customary name
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.transforms import LoadImage
from synthetic_series import LPS_TO_RAS, ras_affine, rotation, write_series

from monai_calib.dicom import read_series, to_metatensor, write_nifti


def canonical(values, affine):
    """Values and affine with the axes in RAS order: equal for volumes that hold the same in the same places."""
    image = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(values, np.float32), np.asarray(affine)))
    return image.get_fdata(), image.affine


# Hypothesis 6.90 now and then calls these few numbers too large.
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
@given(
    angles=st.tuples(*[st.floats(-40, 40)] * 3),
    spacing=st.tuples(st.floats(0.3, 2), st.floats(0.3, 2), st.floats(0.5, 8)),
    backwards=st.booleans(),
    order=st.permutations(range(5)),
)
def test_values_and_places_survive_any_orientation_and_order(angles, spacing, backwards, order, tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    directions = rotation(0, angles[0]) @ rotation(1, angles[1]) @ rotation(2, angles[2])
    directions[:, 2] *= -1 if backwards else 1  # slices may run against the normal of their rows and columns
    affine = ras_affine(directions, spacing, (10.0, -20.0, 30.0))
    stored = np.arange(4 * 3 * 5).reshape(4, 3, 5)
    write_series(folder, stored, affine, names=[f"{k}.dcm" for k in order])
    series = read_series(folder)
    assert np.linalg.det((LPS_TO_RAS @ series.affine)[:3, :3]) > 0
    values, placed = canonical(to_metatensor(series)[0], series.affine)
    expected_values, expected_places = canonical(stored, affine)
    np.testing.assert_array_equal(values, expected_values)
    np.testing.assert_allclose(placed, expected_places, atol=1e-5)


def test_the_affine_is_simpleitks_physical_points_in_ras(oblique, oblique_folder):
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(oblique_folder))
    image = sitk.ReadImage(names)
    for voxel in np.random.default_rng(1).integers(0, oblique.shape, (20, 3)):
        left, back, up = image.TransformIndexToPhysicalPoint([int(index) for index in voxel])
        np.testing.assert_allclose((oblique.affine @ [*voxel, 1])[:3], [-left, -back, up], atol=1e-4)
        assert image[tuple(int(index) for index in voxel)] == to_metatensor(oblique)[(0, *voxel)]


def test_the_nifti_file_is_the_metatensor(oblique, stored, tmp_path):
    path = write_nifti(oblique, tmp_path / "new" / "volume.nii.gz")
    image = nib.load(path)
    np.testing.assert_array_equal(image.get_fdata(), stored)
    np.testing.assert_allclose(image.affine, oblique.affine, atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-5)
    assert image.header["qform_code"] == image.header["sform_code"] == 1
    loaded = LoadImage(ensure_channel_first=True)(path)
    direct = to_metatensor(oblique)
    np.testing.assert_array_equal(loaded.numpy(), direct.numpy())
    np.testing.assert_allclose(loaded.affine.numpy(), direct.affine.numpy(), atol=1e-5)
    assert [p.name for p in path.parent.iterdir()] == ["volume.nii.gz"]


def test_another_ending_is_refused(oblique, tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.nii"):
        write_nifti(oblique, tmp_path / "volume.mha")


def test_every_slice_is_rescaled_by_its_own_slope(tmp_path):
    stored = np.arange(3 * 4 * 5).reshape(3, 4, 5)
    slopes = np.array([1.0, 0.37, 2.5, 0.001, 1.25])
    write_series(tmp_path, stored, np.eye(4), slopes=slopes, intercept=-1024.5)
    values = to_metatensor(read_series(tmp_path))[0].numpy()
    # identity in RAS is two flips in LPS, so rows and columns stay and the slices run along the normal
    np.testing.assert_allclose(values, stored * slopes - 1024.5, rtol=1e-6)


@pytest.mark.real_data
def test_the_real_series(real_series, tmp_path):
    series = read_series(real_series)
    assert series.shape == (35, 51, 32)
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(real_series)))
    written = nib.load(write_nifti(series, tmp_path / "volume.nii.gz"))
    np.testing.assert_array_equal(written.get_fdata(), sitk.GetArrayFromImage(image).T)
    lps = np.array([image.TransformIndexToPhysicalPoint(p) for p in ((0, 0, 0), (34, 50, 31))])
    ras = [(written.affine @ [*p, 1])[:3] for p in ((0, 0, 0), (34, 50, 31))]
    np.testing.assert_allclose(ras, lps * [-1, -1, 1], atol=1e-5)
