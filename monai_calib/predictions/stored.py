"""A stored map as it was read, and what is needed to write another in its place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_calib.datasets.case import Place
from monai_calib.files import FileError
from monai_calib.predictions.axes import Layout
from monai_calib.predictions.properties import Turn

__all__ = ["Grid", "MapFolder", "StoredMap"]


class Grid(NamedTuple):
    """The label's voxels: ``shape`` ``(x, y, z)`` and affine."""

    shape: tuple[int, ...]
    affine: NDArray[np.float64]


class StoredMap(NamedTuple):
    """The values of one case and how its file holds them.

    Attributes:
        values: ``(K, x, y, z)`` as stored, probabilities or logits.
        layout: order of the file's axes.
        dtype: of the numbers in the file.
        file: the first of its files.
        key: name of the array in an ``.npz``.
        box: the part of the grid that the file holds, if not all.
        turn: from the file's axes to the label's, if they run elsewhere.
        place: where the file says that the volume lies.
        spacing: voxel size that the file says, in mm.
        header: of each NIfTI file.
    """

    values: NDArray[Any]
    layout: Layout
    dtype: np.dtype[Any]
    file: Path
    key: str = ""
    box: tuple[slice, ...] | None = None
    turn: Turn | None = None
    place: Place | None = None
    spacing: tuple[float, ...] | None = None
    header: Any = None


class MapFolder(ABC):
    """A folder of maps in one format.

    Args:
        folder: where they lie.
        files: by case; where there is a file per class, in the order of the classes, background first.
        axes: order of the array's axes.
    """

    kind: ClassVar[str]
    default_axes: ClassVar[str]

    def __init__(self, folder: Path, files: Mapping[str, tuple[Path, ...]], axes: str) -> None:
        self.folder, self.files, self.axes = folder, files, axes

    @abstractmethod
    def read(self, case: str, grid: Grid, num_classes: int | None) -> StoredMap:
        """The map of one case; :class:`~monai_calib.files.FileError` naming the file for what is no map of it."""

    @abstractmethod
    def write(self, case: str, folder: Path, found: StoredMap, values: NDArray[Any]) -> None:
        """Write ``(K, x, y, z)`` as the case's files were, into another folder."""

    # Most formats have nothing of the following two.
    def write_labels(self, case: str, folder: Path, labels: NDArray[np.uint8] | None) -> None:  # noqa: B027
        """Write the segmentation that lies beside a map: these labels, or for None the same."""

    def finish(self, folder: Path) -> None:  # noqa: B027
        """Add what belongs to the folder rather than to a case."""

    def files_of_classes(self, case: str, num_classes: int | None) -> tuple[Path, ...]:
        """The files of a case, one per class; ``FileError`` if there are not as many."""
        paths = self.files[case]
        if num_classes not in (None, len(paths)):
            raise FileError(
                f"{paths[0]}: expected {num_classes} files, one per class, got {len(paths)}: "
                f"{', '.join(path.name for path in paths)}. Add the missing ones, or name the classes with --classes."
            )
        return paths
