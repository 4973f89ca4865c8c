"""Segmentations beside maps, as nnU-Net writes them in the file type of its images."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

__all__ = ["find_segmentation", "write_segmentation"]

_NIFTI = (".nii.gz", ".nii")
_PICTURES = (".png", ".bmp", ".tif", ".tiff")
_OF_ITK = (".mha", ".nrrd")


def find_segmentation(folder: Path, case: str) -> Path | None:
    """The segmentation of a case among the maps, of a type that can be written; None if there is none."""
    paths = (folder / f"{case}{ending}" for ending in (*_NIFTI, *_OF_ITK, *_PICTURES))
    return next((path for path in paths if path.is_file()), None)


def write_segmentation(source: Path, target: Path, labels: NDArray[np.uint8] | None) -> None:
    """Write a segmentation as another was written.

    Args:
        source: the other, whose place, header and type of numbers are kept.
        target: where to write, with the same ending.
        labels: new values ``(x, y, z)``; None for the same ones, byte for byte.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     came, goes = Path(folder, "a.png"), Path(folder, "b.png")
        ...     Image.fromarray(np.zeros((2, 3), np.uint8)).save(came)
        ...     write_segmentation(came, goes, np.array([[[1], [0]], [[0], [0]], [[0], [2]]], np.uint8))
        ...     np.asarray(Image.open(goes)).tolist()
        [[1, 0, 0], [0, 0, 2]]
    """
    if labels is None:
        shutil.copyfile(source, target)
    elif source.name.endswith(_NIFTI):
        header = nib.nifti1.load(source).header
        nib.save(nib.Nifti1Image(labels.astype(header.get_data_dtype()), None, header=header), target)
    elif source.name.endswith(_OF_ITK):
        import SimpleITK as sitk  # noqa: N813  # its customary name

        came = sitk.ReadImage(str(source))
        image = sitk.Cast(sitk.GetImageFromArray(np.ascontiguousarray(labels.transpose(2, 1, 0))), came.GetPixelID())
        image.CopyInformation(came)
        sitk.WriteImage(image, str(target), useCompression=True)
    else:
        from PIL import Image

        Image.fromarray(np.ascontiguousarray(labels[..., 0].T)).save(target)
