"""Read volumes to their last byte, replace the values of labels, and write NIfTI."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ..files import atomic_path
from .case import check_affine, check_geometry, itk_affine, spacing_of
from .dataset import SourceError, UnreadableError, Volume

__all__ = [
    "check_same_grid",
    "count_values",
    "open_nifti",
    "read_channels",
    "read_volume",
    "remap_labels",
    "spacing",
    "write_nifti",
]

_KINDS = {"c": "complex numbers", "V": "colours (RGB)"}


def spacing(affine: NDArray[np.float64]) -> tuple[float, ...]:
    """Voxel size in mm along each axis."""
    return spacing_of(affine) or ()


def read_volume(path: Path) -> Volume:
    """Read NIfTI or MetaImage; the affine is voxel to mm with axes to the right, anterior, superior.

    A picture of two axes counts as a volume of one slice where its header says where it lies (NIfTI).

    Raises: :class:`UnreadableError` that names a file that is missing or damaged, :class:`SourceError` one that holds
        values that are not finite or no plain numbers, or whose header says no place.
    """
    if not path.is_file():
        raise UnreadableError(f"{path}: missing.")
    try:
        volume = open_nifti(path) if path.name.endswith((".nii", ".nii.gz")) else _read_with_simpleitk(path)
    except SourceError:
        raise
    except Exception as error:  # gzip, zlib, nibabel, numpy and SimpleITK raise many kinds
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise UnreadableError(f"{path}: cannot be read ({reason}). Download or unpack it again.") from error
    if volume.array.size == 0 or volume.array.ndim < 3:
        raise SourceError(f"{path}: expected a volume of three axes, got shape {volume.array.shape}.")
    try:
        check_affine(volume.affine, path)
    except ValueError as error:
        raise SourceError(str(error)) from error
    if volume.array.dtype.kind == "f" and not np.isfinite(volume.array).all():
        raise SourceError(f"{path}: holds values that are not finite. Set them to a number, or leave the case out.")
    return volume


def open_nifti(path: Path) -> Volume:
    """Read a NIfTI file to its end, where gzip compares its checksum with what was read; numbers in native order.

    Raises: :class:`SourceError` on colours and complex numbers, a voxel size that is not finite, and a file that holds
        much more than its header says; what gzip, nibabel and NumPy raise on a damaged file.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        image = _kind_of_nifti(stream).from_stream(stream)
        kind = image.header.get_data_dtype().kind
        if kind not in "biuf":
            raise SourceError(
                f"{path}: holds {_KINDS.get(kind, kind)}; expected one number a voxel. Save the part you mean (the "
                "magnitude, one colour, or the class numbers) as a volume of its own."
            )
        array = np.asanyarray(image.dataobj)
        claimed, beyond = array.size * image.header.get_data_dtype().itemsize, 0
        stream.seek(image.dataobj.offset + claimed)  # where it is already, unless the file was mapped
        while part := stream.read(1 << 20):
            beyond += len(part)
    if 4 * beyond >= claimed > 0 or beyond > 4096:
        raise SourceError(
            f"{path}: expected {claimed} bytes of voxels, as its header says ({image.header.get_data_dtype()}, shape "
            f"{array.shape}), got {claimed + beyond}. The header is damaged: save the volume again."
        )
    sizes = np.asarray(image.header.get_zooms()[:3], dtype=np.float64)
    if not np.isfinite(sizes).all():
        raise SourceError(f"{path}: the header's voxel size (pixdim) is not finite: {sizes.tolist()}. Correct it.")
    array = np.asarray(array, array.dtype.newbyteorder("="))
    array = array.reshape((*array.shape, 1, 1)[:3]) if array.ndim < 3 else array
    affine = np.asarray(image.affine, dtype=np.float64)
    sform, qform = (
        form if code else None for form, code in (image.header.get_sform(True), image.header.get_qform(True))
    )
    # Some headers hold two grids: an sform with voxels of 1 mm, and a qform that agrees with the voxel size (ACDC).
    scanner = np.asarray(image.header.get_qform(), dtype=np.float64)
    known = qform is not None or abs(np.linalg.det(affine[:3, :3])) > 1e-9
    if known and not _of_sizes(affine, sizes) and _of_sizes(scanner, sizes):
        return Volume(array, scanner, as_stored=False, qform=scanner, header=image.header)
    return Volume(array, affine, sform=sform, qform=qform, header=image.header)


def _kind_of_nifti(stream: Any) -> Any:
    size = stream.read(4)
    stream.seek(0)
    return nib.Nifti2Image if 540 in (int.from_bytes(size, "little"), int.from_bytes(size, "big")) else nib.Nifti1Image


def _of_sizes(affine: NDArray[np.float64], sizes: NDArray[np.float64]) -> bool:
    """Whether the affine's voxels are of these sizes; a picture of two axes has two."""
    return bool(np.allclose(np.sqrt((affine[:3, : len(sizes)] ** 2).sum(0)), sizes, rtol=0.01))


def _read_with_simpleitk(path: Path) -> Volume:
    import SimpleITK as sitk  # noqa: N813  # its customary name

    image = sitk.ReadImage(str(path))
    channels, axes = image.GetNumberOfComponentsPerPixel(), image.GetDimension()
    if channels > 1 or axes != 3:
        kind = "complex numbers" if "complex" in image.GetPixelIDTypeAsString() else f"{channels} numbers a voxel"
        what = f"holds {kind}" if channels > 1 else f"has {axes} axes"
        raise SourceError(
            f"{path}: {what}; expected a volume of three axes with one number a voxel. Save the part you mean as a "
            "volume of its own."
        )
    array = np.moveaxis(sitk.GetArrayFromImage(image), (0, 1, 2), (2, 1, 0))
    return Volume(array, itk_affine(image.GetDirection(), image.GetSpacing(), image.GetOrigin()))


def check_same_grid(image: Volume, label: Volume, of_image: Path, of_label: Path) -> float:
    """Demand the same voxels in the same places; see :func:`monai_calib.datasets.case.check_geometry`.

    Raises: :class:`SourceError` naming both files and what differs.
    """
    try:
        return check_geometry(
            image.place, label.place, image.array.shape[:3], of_image, of_label, label.array.shape[:3]
        )
    except ValueError as error:
        raise SourceError(str(error)) from error


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
    stored = all(volume.as_stored and volume.array.ndim == 3 for volume in volumes)
    return Volume(np.stack([volume.array for volume in volumes], axis=-1), volumes[0].affine, as_stored=stored)


def remap_labels(array: NDArray[Any], label_map: Mapping[int, int], path: Path, advice: str = "") -> NDArray[np.uint8]:
    """Whole-number labels as uint8, each value replaced by what ``label_map`` says.

    Raises: :class:`SourceError` that names the file and the value that is not whole, or that the map does not hold,
        with ``advice`` at its end.
    """
    whole = array if array.dtype.kind in "iu" else np.rint(array)
    if whole is not array and (away := np.abs(array - whole)).max() > 1e-3:
        odd = float(array.reshape(-1)[away.argmax()])
        raise SourceError(
            f"{path}: label value {odd:.6g} is not a whole number; expected {sorted(label_map)}. {advice}".rstrip()
        )
    small = int(whole.min()) >= 0 and int(whole.max()) <= 255
    codes = whole.astype(np.uint8) if small else whole
    found = np.flatnonzero(count_values(codes)).tolist() if small else [int(value) for value in np.unique(whole)]
    unknown = [value for value in found if value not in label_map]
    if unknown:
        shown = ", ".join(map(str, unknown[:8])) + (f" and {len(unknown) - 8} more" if len(unknown) > 8 else "")
        raise SourceError(f"{path}: unknown label value {shown}; expected {sorted(label_map)}. {advice}".rstrip())
    if small:
        table = np.zeros(256, np.uint8)
        table[found] = [label_map[value] for value in found]
        return table[codes]
    return np.array([label_map[value] for value in found], np.uint8)[np.searchsorted(found, codes)]


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
    with atomic_path(path) as partial:
        image = nib.Nifti1Image(_compact(volume.array), volume.affine)
        image.header["descrip"] = description.encode()[:79]
        image.header.set_xyzt_units("mm")
        nib.save(image, partial)
        written = np.asarray(nib.nifti1.load(partial).affine)
        corners = np.array(np.meshgrid(*[(0, size - 1) for size in volume.array.shape[:3]], [1])).reshape(4, -1)
        if np.abs((volume.affine - written) @ corners).max() > 1e-2:
            raise SourceError(
                f"{path.name}: NIfTI cannot hold this orientation and voxel size: {volume.affine.tolist()}."
            )
