"""Properties that nnU-Net keeps beside a map: where the volume lies, how it was cut and turned. All are optional."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from monai_calib.datasets.case import Place, itk_affine

__all__ = ["Turn", "box_of", "place_of", "spacing_of_properties", "turn_of"]


class Turn(NamedTuple):
    """Flips and swaps of axes from a map's grid to the label's, for a reader of nnU-Net that reorients volumes.

    Attributes:
        forth, back: as :func:`nibabel.orientations.apply_orientation` takes them.
        shape: ``(x, y, z)`` of the map's grid.
        place: of the map, once it has been turned.
    """

    forth: NDArray[Any]
    back: NDArray[Any]
    shape: tuple[int, ...]
    place: Place

    def to_label(self, values: NDArray[Any]) -> NDArray[Any]:
        """``(K, *shape)`` on the label's grid."""
        return _turned(values, self.forth)

    def to_map(self, values: NDArray[Any]) -> NDArray[Any]:
        """``(K, x, y, z)`` on the map's grid."""
        return _turned(values, self.back)


def turn_of(properties: Mapping[str, Any], affine: NDArray[np.float64], shape: Sequence[int]) -> Turn | None:
    """The turn from a reoriented map to its label; None for maps on the label's own axes.

    Args:
        properties: of the map; those of ``NibabelIOWithReorient`` and ``SimpleITKIOWithReorient`` tell.
        affine: of the label.
        shape: of the label.
    """
    try:
        if "nibabel_stuff" in properties:
            mine = np.asarray(properties["nibabel_stuff"]["reoriented_affine"], np.float64).reshape(4, 4)
        elif "original_orientation" in properties["sitk_stuff"]:
            mine = _of_itk(properties["sitk_stuff"])
        else:
            return None
    except (KeyError, TypeError, ValueError):
        return None
    ours, theirs = nib.io_orientation(mine), nib.io_orientation(affine)
    if np.array_equal(ours, theirs):
        return None
    forth = nib.orientations.ornt_transform(ours, theirs)
    back = nib.orientations.ornt_transform(theirs, ours)
    before = tuple(int(shape[int(axis)]) for axis, _ in forth)
    return Turn(forth, back, before, Place(mine @ nib.orientations.inv_ornt_aff(forth, before)))


def place_of(properties: Mapping[str, Any]) -> Place | None:
    """Place of the volume as nnU-Net says; None if it does not, or not in a way that is known.

    Example:
        >>> of_itk = {"spacing": (1, 1, 3), "origin": (5, 0, 0), "direction": (1, 0, 0, 0, 1, 0, 0, 0, 1)}
        >>> np.asarray(place_of({"sitk_stuff": of_itk}).affine)[0].tolist()
        [-1.0, 0.0, 0.0, -5.0]
    """
    try:
        if "nibabel_stuff" in properties:
            return Place(np.asarray(properties["nibabel_stuff"]["original_affine"], np.float64).reshape(4, 4))
        return Place(_of_itk(properties["sitk_stuff"]))
    except (KeyError, TypeError, ValueError):
        return None


def spacing_of_properties(properties: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Voxel size along x, y, z; nnU-Net's own order is z, y, x.

    Example:
        >>> spacing_of_properties({"spacing": [3.0, 1.0, 0.5]})
        (0.5, 1.0, 3.0)
    """
    try:
        z, y, x = (float(size) for size in properties["spacing"])
    except (KeyError, TypeError, ValueError):
        return None
    return x, y, z


def box_of(
    properties: Mapping[str, Any], shape: Sequence[int], axes: str, label_shape: Sequence[int]
) -> tuple[slice, ...] | None:
    """The part of the label's grid that a map of nnU-Net v1 is of, along x, y, z; None if it is whole or unknown.

    Args:
        properties: of the map; ``crop_bbox`` tells.
        shape: of the array in the file.
        axes: their order.
        label_shape: ``(x, y, z)``.
    """
    given = properties.get("crop_bbox")
    if given is None or len(shape) != 4:
        return None
    sizes = dict(zip(axes, shape, strict=True))
    if [sizes[axis] for axis in "xyz"] == list(label_shape):
        return None
    try:
        box = {axis: slice(int(low), int(high)) for axis, (low, high) in zip("zyx", given, strict=True)}
    except (TypeError, ValueError):
        return None
    cut = tuple(box[axis] for axis in "xyz")
    fits = all(0 <= part.start < part.stop <= size for part, size in zip(cut, label_shape, strict=True))
    return cut if fits and all(box[axis].stop - box[axis].start == sizes[axis] for axis in "xyz") else None


def _turned(values: NDArray[Any], orientation: NDArray[Any]) -> NDArray[Any]:
    """Turn the axes behind the first."""
    last = np.moveaxis(values, 0, -1)
    return np.moveaxis(nib.orientations.apply_orientation(last, orientation), -1, 0)


def _of_itk(geometry: Mapping[str, Any]) -> NDArray[np.float64]:
    return itk_affine(geometry["direction"], geometry["spacing"], geometry["origin"])
