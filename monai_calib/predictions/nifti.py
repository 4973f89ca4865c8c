"""Maps in NIfTI: the classes on the fourth axis of one file, or one file per class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from monai_calib.datasets.case import check_geometry
from monai_calib.datasets.dataset import Volume
from monai_calib.datasets.volumes import read_volume
from monai_calib.files import FileError
from monai_calib.predictions.axes import Layout
from monai_calib.predictions.stored import Grid, StoredMap

__all__ = ["NiftiMaps", "NiftiMapsPerClass"]


class NiftiMaps:
    """A folder of ``<case>.nii.gz`` or ``.nii`` with a fourth axis of classes (or a fifth, as ITK writes vectors).

    Args:
        folder: where they lie.
        files: by case.
        axes: order of the array's axes.
    """

    kind = "nifti"
    default_axes = "xyzk"

    def __init__(self, folder: Path, files: Mapping[str, tuple[Path, ...]], axes: str) -> None:
        self.folder, self.files, self.axes = folder, files, axes

    def read(self, case: str, grid: Grid, num_classes: int | None) -> StoredMap:
        """The map of one case; :class:`~monai_calib.files.FileError` naming the file for another shape."""
        path = self.files[case][0]
        volume = read_volume(path)
        layout = Layout(volume.array.shape, self.axes, grid.shape, path, num_classes)
        place = volume.place if self.axes == self.default_axes else None
        values = layout.class_first(volume.array)
        return StoredMap(values, layout, _dtype(volume), path, place=place, header=volume.header)

    def write(self, case: str, folder: Path, found: StoredMap, values: NDArray[Any]) -> list[Path]:
        """Write ``(K, x, y, z)`` with the header of the case's file."""
        target = folder / self.files[case][0].relative_to(self.folder)
        _save(found.layout.as_stored(values), found.header, target)
        return [target]

    def write_labels(self, case: str, folder: Path, labels: NDArray[np.uint8] | None) -> None:
        """Write nothing: no segmentation lies beside such a map."""

    def finish(self, folder: Path) -> None:
        """Add nothing."""


class NiftiMapsPerClass:
    """A folder of ``<case>_<class>.nii.gz``, or of a folder per class with ``<case>.nii.gz``; files in class order.

    Args:
        folder: where they lie.
        files: by case, a file per class, background first.
        axes: order of the axes, the classes' first.
    """

    kind = "nifti_per_class"
    default_axes = "kxyz"

    def __init__(self, folder: Path, files: Mapping[str, tuple[Path, ...]], axes: str) -> None:
        if not axes.startswith("k"):
            raise ValueError(
                f"axes: expected kxyz or another order that begins with k for one file per class, got {axes}."
            )
        self.folder, self.files, self.axes = folder, files, axes

    def read(self, case: str, grid: Grid, num_classes: int | None) -> StoredMap:
        """The map of one case.

        Raises: :class:`~monai_calib.files.FileError` naming the files: a class missing, or another grid.
        """
        paths = self.files[case]
        volumes = [read_volume(path) for path in paths]
        first = volumes[0]
        for volume, path in zip(volumes[1:], paths[1:], strict=True):
            check_geometry(first.place, volume.place, first.array.shape, paths[0], path, volume.array.shape)
        array = np.stack([volume.array for volume in volumes])
        if num_classes not in (None, len(paths)):
            raise FileError(
                f"{paths[0]}: expected {num_classes} files, one per class, got {len(paths)}: "
                f"{', '.join(path.name for path in paths)}. Add the missing ones, or name the classes with --classes."
            )
        layout = Layout(array.shape, self.axes, grid.shape, paths[0], num_classes)
        place = first.place if self.axes == self.default_axes else None
        headers = [volume.header for volume in volumes]
        return StoredMap(layout.class_first(array), layout, _dtype(first), paths[0], place=place, header=headers)

    def write(self, case: str, folder: Path, found: StoredMap, values: NDArray[Any]) -> list[Path]:
        """Write ``(K, x, y, z)``, a file per class, with the headers of the case's files."""
        targets = [folder / path.relative_to(self.folder) for path in self.files[case]]
        stored = found.layout.as_stored(values)
        for part, header, target in zip(stored, found.header, targets, strict=True):
            _save(part, header, target)
        return targets

    def write_labels(self, case: str, folder: Path, labels: NDArray[np.uint8] | None) -> None:
        """Write nothing: no segmentation lies beside such a map."""

    def finish(self, folder: Path) -> None:
        """Add nothing."""


def _dtype(volume: Volume) -> np.dtype[Any]:
    return np.dtype(volume.header.get_data_dtype())


def _save(array: NDArray[Any], header: Any, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    dtype = header.get_data_dtype()
    image = kind(array.astype(dtype) if dtype.kind == "f" else array, None, header=header)
    nib.save(image, target)
