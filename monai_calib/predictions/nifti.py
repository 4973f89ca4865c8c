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
from monai_calib.predictions.axes import Layout
from monai_calib.predictions.stored import Grid, MapFolder, StoredMap

__all__ = ["NiftiMaps", "NiftiMapsPerClass"]


class NiftiMaps(MapFolder):
    """A folder of ``<case>.nii.gz`` or ``.nii`` with a fourth axis of classes (or a fifth, as ITK writes vectors)."""

    kind = "nifti"
    default_axes = "xyzk"

    def read(self, case: str, grid: Grid, num_classes: int | None) -> StoredMap:
        path = self.files[case][0]
        volume = read_volume(path)
        layout = Layout(volume.array.shape, self.axes, grid.shape, path, num_classes)
        place = volume.place if self.axes == self.default_axes else None
        values = layout.class_first(volume.array)
        return StoredMap(values, layout, _dtype(volume), path, place=place, header=volume.header)

    def write(self, case: str, folder: Path, found: StoredMap, values: NDArray[Any]) -> None:
        target = folder / self.files[case][0].relative_to(self.folder)
        _save(found.layout.as_stored(values), found.header, target)


class NiftiMapsPerClass(MapFolder):
    """A folder of ``<case>_<class>.nii.gz``, or of a folder per class with ``<case>.nii.gz``."""

    kind = "nifti_per_class"
    default_axes = "kxyz"

    def __init__(self, folder: Path, files: Mapping[str, tuple[Path, ...]], axes: str) -> None:
        if not axes.startswith("k"):
            raise ValueError(
                f"axes: expected kxyz or another order that begins with k for one file per class, got {axes}."
            )
        super().__init__(folder, files, axes)

    def read(self, case: str, grid: Grid, num_classes: int | None) -> StoredMap:
        paths = self.files_of_classes(case, num_classes)
        volumes = [read_volume(path) for path in paths]
        first = volumes[0]
        for volume, path in zip(volumes[1:], paths[1:], strict=True):
            check_geometry(first.place, volume.place, first.array.shape, paths[0], path, volume.array.shape)
        array = np.stack([volume.array for volume in volumes])
        layout = Layout(array.shape, self.axes, grid.shape, paths[0], num_classes)
        place = first.place if self.axes == self.default_axes else None
        headers = [volume.header for volume in volumes]
        return StoredMap(layout.class_first(array), layout, _dtype(first), paths[0], place=place, header=headers)

    def write(self, case: str, folder: Path, found: StoredMap, values: NDArray[Any]) -> None:
        targets = [folder / path.relative_to(self.folder) for path in self.files[case]]
        stored = found.layout.as_stored(values)
        for part, header, target in zip(stored, found.header, targets, strict=True):
            _save(part, header, target)


def _dtype(volume: Volume) -> np.dtype[Any]:
    return np.dtype(volume.header.get_data_dtype())


def _save(array: NDArray[Any], header: Any, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    dtype = header.get_data_dtype()
    image = kind(array.astype(dtype) if dtype.kind == "f" else array, None, header=header)
    nib.save(image, target)
