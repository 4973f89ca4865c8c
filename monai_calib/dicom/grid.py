"""Predictions in NIfTI files, brought onto the grid of the series they were made from."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .series import Series

__all__ = ["load_on_grid"]

# Of a voxel: far below what can be seen, far above the rounding of NIfTI's float32 transforms.
_TOLERANCE = 0.01


def load_on_grid(path: str | Path, series: Series, resample: bool = False, order: int = 0) -> NDArray[Any]:
    """Read a NIfTI volume as ``(columns, rows, slices)`` of the series, or ``(columns, rows, slices, channels)``.

    The same voxels stored in another order (flipped or permuted axes, as after reorientation to RAS) are put in
    order, which changes no value. Another grid is refused, or resampled if asked for: each voxel of the series takes
    the nearest value (``order=0``, for labels) or the linear interpolation (``order=1``) at its centre, and 0 outside.

    Raises:
        ValueError: the file is no NIfTI volume of three axes, or its grid is not the series' grid, or, when
            resampling, it does not even overlap with the series.
    """
    source = Path(path)
    try:
        image = nib.load(source)
        data = np.asanyarray(image.dataobj)  # type: ignore[attr-defined]
        affine = np.asarray(image.affine, dtype=np.float64)  # type: ignore[attr-defined]
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"cannot read {str(source)!r} ({error}); expected a whole NIfTI volume") from error
    if data.dtype.kind not in "biuf" or not np.isfinite(data).all():
        raise ValueError(f"{str(source)!r}: expected finite numbers, got {data.dtype} with others. Write it again.")
    if data.ndim == 5 and data.shape[3] == 1:  # NIfTI's place for vectors: (x, y, z, 1, channels)
        data = data[:, :, :, 0]
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
    if data.ndim not in (3, 4):
        raise ValueError(f"{str(source)!r} has the axes {data.shape}; expected three, or four with classes last")
    steps = np.linalg.inv(series.affine) @ affine
    orientation = nib.orientations.io_orientation(steps)
    ordered = nib.orientations.apply_orientation(data, orientation)
    placed = affine @ nib.orientations.inv_ornt_aff(orientation, data.shape[:3])
    astray = _astray(placed, series)
    if ordered.shape[:3] == series.shape and astray <= _TOLERANCE:
        return np.ascontiguousarray(ordered)
    if not resample:
        raise ValueError(
            f"{str(source)!r} has {ordered.shape[:3]} voxels, and a corner up to {astray:.2f} voxels away from that of "
            f"series {series.uid} of {series.shape} voxels; expected the series' own grid. Predict from the NIfTI "
            "volume of this very series, or ask for resampling (--resample)"
        )
    return _resampled(data, np.linalg.inv(affine) @ series.affine, series, order, source)


def _astray(affine: NDArray[np.float64], series: Series) -> float:
    """Largest distance between corners of the series on the two grids, in voxels of the series."""
    corners = np.array([(*corner, 1) for corner in product(*((0, size - 1) for size in series.shape))])
    there = corners @ (np.linalg.inv(series.affine) @ affine).T
    return float(np.abs(there - corners).max())


def _resampled(
    data: NDArray[Any], to_data: NDArray[np.float64], series: Series, order: int, source: Path
) -> NDArray[Any]:
    inside = ndimage.affine_transform(
        np.ones(data.shape[:3], np.uint8), to_data[:3, :3], to_data[:3, 3], series.shape, order=0
    )
    if not inside.any():
        raise ValueError(f"{str(source)!r} lies outside of series {series.uid}; it belongs to other images")
    channels = data[..., None] if data.ndim == 3 else data
    moved = [
        ndimage.affine_transform(channels[..., k], to_data[:3, :3], to_data[:3, 3], series.shape, order=order)
        for k in range(channels.shape[3])
    ]
    return moved[0] if data.ndim == 3 else np.stack(moved, axis=-1)
