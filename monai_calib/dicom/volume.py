"""A series as volume for the network: a MetaTensor or a NIfTI file on the series' own grid."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813  # its customary name
import torch
from monai.data import MetaTensor

from monai_calib.files import atomic_path

from .series import Series

__all__ = ["to_metatensor", "write_nifti"]


def to_metatensor(series: Series) -> MetaTensor:
    """The series as ``(1, columns, rows, slices)`` float32 with its affine to RAS, as MONAI's ``LoadImage`` gives it.

    Values are rescaled by each slice's own slope and intercept. The metadata hold the Series Instance UID as name and
    nothing of the patient.
    """
    values = torch.from_numpy(_values(series).copy())[None]
    meta = {"filename_or_obj": series.uid, "space": "RAS", "spatial_shape": np.array(series.shape)}
    return MetaTensor(values, affine=torch.from_numpy(series.affine), meta=meta)


def write_nifti(series: Series, path: str | Path) -> Path:
    """Write the series as float32 NIfTI volume with the same geometry, atomically.

    Raises:
        ValueError: the name does not end in ``.nii`` or ``.nii.gz``.
    """
    target = Path(path)
    if not target.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"{str(target)!r} is no NIfTI name; expected one that ends in .nii or .nii.gz")
    image = nib.Nifti1Image(_values(series), series.affine)
    # Both transforms with "scanner" as code: readers that trust only one of them agree.
    image.set_qform(series.affine, code=1)
    image.set_sform(series.affine, code=1)
    image.header.set_xyzt_units("mm")
    with atomic_path(target) as temporary:
        nib.save(image, temporary)
    return target


def _values(series: Series) -> np.ndarray:
    """``(columns, rows, slices)``: SimpleITK's arrays run the other way round."""
    return sitk.GetArrayViewFromImage(series.image).T
