"""Predictions are accepted on the series' own voxels in any storage order, and resampled only if asked."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # its customary name
from scipy import ndimage

from monai_calib.dicom import load_on_grid


@pytest.fixture
def values(oblique):
    return np.random.default_rng(6).integers(0, 200, oblique.shape).astype(np.uint8)


def save(path, values, affine):
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


@pytest.mark.parametrize("channels", [None, 3])
def test_flipped_and_permuted_axes_are_the_same_voxels(oblique, values, channels, tmp_path):
    if channels:
        values = np.stack([values, values // 2, 200 - values], axis=-1)
    image = nib.Nifti1Image(values, oblique.affine)
    for axes, signs in product(permutations(range(3)), product((-1, 1), repeat=3)):
        turned = image.as_reoriented(np.array([*zip(axes, signs, strict=True)]))
        path = save(tmp_path / "turned.nii.gz", np.asarray(turned.dataobj), turned.affine)
        np.testing.assert_array_equal(load_on_grid(path, oblique), values)


def test_a_single_channel_is_a_volume(oblique, values, tmp_path):
    path = save(tmp_path / "a.nii.gz", values[..., None], oblique.affine)
    np.testing.assert_array_equal(load_on_grid(path, oblique), values)


@pytest.mark.parametrize("shift", [0.02, 0.5, 1.0])
def test_another_place_is_refused(oblique, values, shift, tmp_path):
    moved = oblique.affine.copy()
    moved[:3, 3] += shift * moved[:3, 1]
    path = save(tmp_path / "a.nii.gz", values, moved)
    with pytest.raises(ValueError, match=rf"up to {shift:.2f} voxels away .* {oblique.uid} .*--resample"):
        load_on_grid(path, oblique)


def test_another_size_or_spacing_is_refused(oblique, values, tmp_path):
    with pytest.raises(ValueError, match=r"\(7, 9, 5\) voxels"):
        load_on_grid(save(tmp_path / "a.nii.gz", values[:, :, :-1], oblique.affine), oblique)
    wider = oblique.affine @ np.diag([1.0, 1, 1.05, 1])
    with pytest.raises(ValueError, match="expected the series' own grid"):
        load_on_grid(save(tmp_path / "b.nii.gz", values, wider), oblique)


@pytest.mark.parametrize(("order", "interpolator"), [(0, sitk.sitkNearestNeighbor), (1, sitk.sitkLinear)])
def test_resampling_is_simpleitks(oblique, order, interpolator, tmp_path):
    coarse = oblique.affine @ np.diag([0.6, 0.8, 0.7, 1])
    coarse[:3, 3] += [-0.31, 0.43, -0.77]
    values = ndimage.gaussian_filter(np.random.default_rng(7).normal(size=(14, 16, 12)), 1).astype(np.float32)
    path = save(tmp_path / "a.nii.gz", values, coarse)
    ours = load_on_grid(path, oblique, resample=True, order=order)
    theirs = sitk.GetArrayFromImage(
        sitk.Resample(sitk.ReadImage(str(path)), oblique.image, sitk.Transform(), interpolator)
    ).T
    inner = (slice(1, -1),) * 3  # at the border of the image the two end half a voxel apart
    np.testing.assert_allclose(ours[inner], theirs[inner], atol=2e-5)
    assert ours[inner].std() > 0.01


def test_resampling_does_not_reach_into_nothing(oblique, values, tmp_path):
    away = oblique.affine.copy()
    away[:3, 3] += 500
    with pytest.raises(ValueError, match=f"lies outside of series {oblique.uid}"):
        load_on_grid(save(tmp_path / "a.nii.gz", values, away), oblique, resample=True)


def test_what_is_no_volume_is_told(oblique, values, tmp_path):
    with pytest.raises(ValueError, match="expected three"):
        load_on_grid(save(tmp_path / "flat.nii.gz", values[:, :, 0], oblique.affine), oblique)
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"cannot read .*broken\.nii\.gz"):
        load_on_grid(tmp_path / "broken.nii.gz", oblique)
    with pytest.raises(FileNotFoundError):
        load_on_grid(tmp_path / "missing.nii.gz", oblique)
