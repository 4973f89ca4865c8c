"""Reads and writes volumes, and checks that an image and its label speak of the same voxels."""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from .dataset import SourceError, Volume

__all__ = [
    "check_same_grid",
    "corner_distance",
    "count_values",
    "read_channels",
    "read_volume",
    "remap_labels",
    "spacing",
    "write_nifti",
]


def _read_nifti(path: Path) -> Volume:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        image = nib.nifti1.Nifti1Image.from_stream(stream)
        array = np.asanyarray(image.dataobj)
        while stream.read(1 << 20):  # to the end, where gzip compares its checksum with what was read
            pass
    affine = np.asarray(image.affine, dtype=np.float64)
    # Some headers hold two grids: an sform with voxels of 1 mm, and a qform that agrees with the voxel size (ACDC).
    sizes = image.header.get_zooms()[:3]
    scanner = np.asarray(image.header.get_qform(), dtype=np.float64)
    if not np.allclose(spacing(affine), sizes, rtol=0.01) and np.allclose(spacing(scanner), sizes, rtol=0.01):
        return Volume(array, scanner, as_stored=False)
    return Volume(array, affine)


def _read_with_simpleitk(path: Path) -> Volume:
    import SimpleITK as sitk  # noqa: N813  # its customary name

    image = sitk.ReadImage(str(path))
    array = np.moveaxis(sitk.GetArrayFromImage(image), (0, 1, 2), (2, 1, 0))
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return Volume(array, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)  # from left-posterior-superior to NIfTI's axes


def read_volume(path: Path) -> Volume:
    """Read NIfTI or MetaImage; the affine is voxel to mm with axes to the right, anterior, superior.

    Raises: :class:`SourceError` that names a file that is missing, damaged, or holds values that are not finite.
    """
    if not path.is_file():
        raise SourceError(f"{path}: missing. Unpack the official archive again, it may have been interrupted.")
    try:
        volume = _read_nifti(path) if path.name.endswith((".nii", ".nii.gz")) else _read_with_simpleitk(path)
    except Exception as error:  # the readers raise zlib, gzip, struct, OS and their own errors alike
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise SourceError(f"{path}: cannot be read ({reason}). Download or unpack it again.") from error
    if volume.array.size == 0 or volume.array.ndim < 3:
        raise SourceError(f"{path}: expected a volume of three axes, got shape {volume.array.shape}.")
    if not np.isfinite(volume.affine).all() or abs(np.linalg.det(volume.affine[:3, :3])) < 1e-9:
        raise SourceError(f"{path}: the header's voxel size or orientation is not usable: {volume.affine.tolist()}.")
    if not np.isfinite(volume.array).all():
        raise SourceError(f"{path}: holds values that are not finite.")
    return volume


def spacing(affine: NDArray[np.float64]) -> tuple[float, ...]:
    """Voxel size in mm along each axis."""
    return tuple(float(size) for size in np.sqrt((affine[:3, :3] ** 2).sum(0)))


def corner_distance(first: NDArray[np.float64], second: NDArray[np.float64], shape: Sequence[int]) -> float:
    """How far apart, in mm at most, two affines put the corners of a volume."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape[:3]], indexing="ij")).reshape(3, -1)
    corners = np.vstack([corners, np.ones(corners.shape[1])])
    return float(np.sqrt((((first - second) @ corners)[:3] ** 2).sum(0)).max())


def check_same_grid(image: Volume, label: Volume, of_image: Path, of_label: Path, tolerance: float = 0.1) -> None:
    """Demand the same number of voxels, in the same places to a tenth of a voxel.

    Raises: :class:`SourceError` naming both files and what differs.
    """
    if image.array.shape[:3] != label.array.shape[:3]:
        raise SourceError(
            f"{of_label}: label of {label.array.shape[:3]} voxels for an image of {image.array.shape[:3]} ({of_image})."
        )
    apart = corner_distance(image.affine, label.affine, image.array.shape)
    if apart > tolerance * min(spacing(image.affine)):
        raise SourceError(
            f"{of_label}: the headers put label and image ({of_image}) up to {apart:.3g} mm apart: "
            f"voxel sizes {_round(spacing(label.affine))} and {_round(spacing(image.affine))} mm, "
            f"origins {_round(label.affine[:3, 3])} and {_round(image.affine[:3, 3])}."
        )


def _round(values: Sequence[float] | NDArray[Any]) -> list[float]:
    return [round(float(value), 3) for value in values]


def read_channels(paths: Sequence[Path]) -> Volume:
    """Read an image from a file a channel; several channels are stacked on a last axis, after checking their grids."""
    volumes = [read_volume(path) for path in paths]
    for volume, path in zip(volumes[1:], paths[1:], strict=True):
        check_same_grid(volumes[0], volume, paths[0], path)
    if len(volumes) == 1:
        first = volumes[0]
        if first.array.shape[3:] == (1,):
            return Volume(first.array[..., 0], first.affine, as_stored=False)
        return first
    return Volume(np.stack([volume.array for volume in volumes], axis=-1), volumes[0].affine)


def remap_labels(array: NDArray[Any], label_map: Mapping[int, int], path: Path) -> NDArray[np.uint8]:
    """Whole-number labels as uint8, each value replaced by what ``label_map`` says.

    Raises: :class:`SourceError` that names the file and the value that is not whole, or that the map does not hold.
    """
    whole = array if array.dtype.kind in "iu" else np.rint(array)
    if whole is not array and (away := np.abs(array - whole)).max() > 1e-3:
        odd = float(array.reshape(-1)[away.argmax()])
        raise SourceError(f"{path}: label value {odd:.6g} is not a whole number; expected {sorted(label_map)}.")
    low, high = int(whole.min()), int(whole.max())
    if low < 0 or high > 255:
        unknown = [low if low < 0 else high]
    else:
        codes = whole.astype(np.uint8)
        unknown = [value for value in np.flatnonzero(count_values(codes)).tolist() if value not in label_map]
    if unknown:
        raise SourceError(f"{path}: unknown label value {', '.join(map(str, unknown))}; expected {sorted(label_map)}.")
    table = np.zeros(256, np.uint8)
    table[list(label_map)] = list(label_map.values())
    return table[codes]


def count_values(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number of voxels of each value from 0 to 255, slice by slice: volumes can be of some hundred million voxels."""
    return np.sum([np.bincount(part.reshape(-1), minlength=256) for part in labels], axis=0)


def _compact(array: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers that fit as int16: the same values in a fourth of the space of a double."""
    if array.dtype.kind != "f" or np.abs(array).max() > np.iinfo(np.int16).max:
        return array
    whole = array.astype(np.int16)
    return whole if np.array_equal(whole, array) else array


def write_nifti(volume: Volume, path: Path, description: str) -> None:
    """Write compressed NIfTI, then read its header again: shape and place of the voxels must have survived.

    Raises: :class:`SourceError` if the format cannot hold the affine.
    """
    partial = path.with_name(f".{path.name}.partial.nii.gz")
    image = nib.Nifti1Image(_compact(volume.array), volume.affine)
    image.header["descrip"] = description.encode()[:79]
    image.header.set_xyzt_units("mm")
    nib.save(image, partial)
    written = nib.nifti1.load(partial)
    if corner_distance(volume.affine, np.asarray(written.affine), volume.array.shape) > 1e-2:
        raise SourceError(f"{path.name}: NIfTI cannot hold this orientation and voxel size: {volume.affine.tolist()}.")
    os.replace(partial, path)
