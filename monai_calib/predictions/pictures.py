"""Maps of pictures: one grey PNG of 8 or 16 bits per class, whose brightest value stands for 1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from monai_calib.datasets.dataset import SourceError, UnreadableError
from monai_calib.datasets.pictures import mask_values
from monai_calib.files import FileError
from monai_calib.predictions.axes import Layout
from monai_calib.predictions.stored import Grid, MapFolder, StoredMap

__all__ = ["PictureMapsPerClass"]


class PictureMapsPerClass(MapFolder):
    """A folder of ``<case>_<class>.png``, as a bundle's inference writes them."""

    kind = "png_per_class"
    default_axes = "kxyz"

    def __init__(self, folder: Path, files: Mapping[str, tuple[Path, ...]], axes: str) -> None:
        if axes != self.default_axes:
            raise ValueError(f"axes: expected {self.default_axes} for pictures, got {axes}. Leave --axes out.")
        super().__init__(folder, files, axes)

    def read(self, case: str, grid: Grid, num_classes: int | None) -> StoredMap:
        paths = self.files_of_classes(case, num_classes)
        parts = [_grey(path) for path in paths]
        for part, path in zip(parts, paths, strict=True):
            if part.shape != parts[0].shape or part.dtype != parts[0].dtype:
                raise FileError(
                    f"{path}: expected {parts[0].shape} pixels of {parts[0].dtype} as in {paths[0].name}, got "
                    f"{part.shape} of {part.dtype}. Write the maps of a case alike."
                )
        dtype = parts[0].dtype
        values = np.stack(parts).astype(np.float32)[..., None] / np.float32(np.iinfo(dtype).max)
        layout = Layout(values.shape, self.axes, grid.shape, paths[0], num_classes)
        return StoredMap(layout.class_first(values), layout, dtype, paths[0])

    def write(self, case: str, folder: Path, found: StoredMap, values: NDArray[Any]) -> None:
        targets = [folder / path.relative_to(self.folder) for path in self.files[case]]
        whole = np.rint(values[..., 0] * np.iinfo(found.dtype).max).astype(found.dtype)
        for part, target in zip(whole, targets, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(part.T)).save(target)


def _grey(path: Path) -> NDArray[Any]:
    try:
        values = mask_values(path)
    except UnreadableError as error:
        raise FileError(str(error)) from error
    except SourceError as error:
        raise FileError(f"{path}: expected one probability a pixel, got colours or pages. Save it as grey.") from error
    if values.dtype not in (np.uint8, np.uint16):
        raise FileError(f"{path}: expected a grey picture of 8 or 16 bits, got {values.dtype}. Save it as such.")
    return values
