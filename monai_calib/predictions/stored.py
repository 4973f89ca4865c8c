"""A stored map as it was read, and what is needed to write another in its place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from monai_calib.datasets.case import Place
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


class MapFolder(Protocol):
    """A folder of maps in one format."""

    kind: str
    default_axes: str
    folder: Path
    files: Mapping[str, tuple[Path, ...]]
    axes: str

    def read(self, case: str, grid: Grid, num_classes: int | None) -> StoredMap:
        """The map of one case."""

    def write(self, case: str, folder: Path, found: StoredMap, values: NDArray[Any]) -> list[Path]:
        """Write ``(K, x, y, z)`` as the case's files were, into another folder."""

    def write_labels(self, case: str, folder: Path, labels: NDArray[np.uint8] | None) -> None:
        """Write the segmentation that lies beside a map, if there is one: these labels, or for None the same."""

    def finish(self, folder: Path) -> None:
        """Add what belongs to the folder rather than to a case."""
