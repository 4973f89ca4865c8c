"""Read a case from disk, so that a broken file, label or header is named where it is met."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.image_reader import NibabelReader
from monai.data.utils import to_affine_nd
from monai.transforms import LoadImage, MapTransform

from monai_calib.datasets.case import Place, check_affine, check_geometry
from monai_calib.datasets.dataset import SourceError, UnreadableError
from monai_calib.datasets.volumes import read_volume
from monai_calib.labels import check_label

__all__ = ["LoadCased"]

_GEOMETRY = ("check", "label_from_image")
_PLACELESS = (".png", ".jpg", ".jpeg", ".bmp", ".npy", ".npz")  # no header that says where


class LoadCased(MapTransform):
    """Read image and label channel-first and check that they belong together.

    The checks run once per case, on the CPU and before caching, so the training step needs none: a label that is no
    integer in ``[0, num_classes)`` would otherwise surface as an index error, or on a GPU as a failed assertion without
    a name. NIfTI is read to its end, where gzip keeps a checksum. A NIfTI file of two axes is a volume of one slice,
    and so is a picture beside one. Several files of an image are its channels; several of a label are those of raters,
    each checked by itself: ``(R, *spatial)`` class numbers, for :class:`MeanLabeld` or :class:`KeepRatersd`.

    Afterwards the label lies exactly where the image does: what headers differ by less than half a voxel is rounding.

    Args:
        keys: items to read; the label is the item ``label_key``.
        num_classes: number of classes, background included.
        label_key: the item to check as label.
        geometry: ``"check"`` refuses a label whose header puts it elsewhere than the image, by half a voxel or more at
            any corner; ``"label_from_image"`` disregards the label's header, for labels saved without one. Sizes must
            agree in either case.
        ignore_index: label of voxels that count nowhere, allowed beside the class numbers.

    Raises:
        RuntimeError: a file cannot be read (for example a truncated archive).
        ValueError: image and label differ in size or place, a voxel of the image is not finite, complex or a colour, or
            a label value is not a whole number in ``[0, num_classes)``. The error names the files.

    Example:
        >>> LoadCased(keys=("image", "label"), num_classes=3)({"image": "missing.nii.gz", "label": "missing.nii.gz"})
        Traceback (most recent call last):
        monai_calib.datasets.dataset.UnreadableError: cannot read 'missing.nii.gz' ...
    """

    def __init__(
        self,
        keys: KeysCollection,
        num_classes: int,
        label_key: str = "label",
        geometry: str = "check",
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(keys)
        if geometry not in _GEOMETRY:
            raise ValueError(f"geometry: expected one of {', '.join(_GEOMETRY)}, got {geometry!r}.")
        self.num_classes = num_classes
        self.label_key = label_key
        self.geometry = geometry
        self.ignore_index = ignore_index
        self.load_nifti = LoadImage(image_only=True, ensure_channel_first=True)
        self.load_other = LoadImage(image_only=True, ensure_channel_first=True, dtype=None)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        keys = list(self.key_iterator(case))
        items = {key: self._read(key, data[key]) for key in keys if key != self.label_key}
        if self.label_key in keys:
            labels = self._read_labels(data[self.label_key])
            for label in labels:
                items = {key: self._beside(image, label) for key, image in items.items()}
            first = next(iter(items.values()), labels[0])
            for label in () if items else labels[1:]:
                _check_place(first, label)
            items[self.label_key] = _stacked([_moved(label, first) for label in labels])
        return {**case, **{key: item.tensor for key, item in items.items()}}

    def _read(self, key: Hashable, named: Any) -> _Item:
        """The item, its channels from one file or several."""
        channels = [self._read_file(key, file) for file in _files(named)]
        for other in channels[1:]:
            _check_place(channels[0], other)
        return _stacked(channels)

    def _read_labels(self, named: Any) -> list[_Item]:
        """The label, or those of several raters."""
        labels = [self._read_file(self.label_key, file) for file in _files(named)]
        for label in labels:
            self._check_values(label)
        return labels

    def _read_file(self, key: Hashable, file: str) -> _Item:
        try:
            item = self._nifti(file) if file.endswith((".nii", ".nii.gz")) else self._other(file)
        except UnreadableError as error:
            raise _unreadable(key, file, error) from error
        except SourceError:
            raise
        except Exception as error:  # MONAI's readers raise many kinds
            raise _unreadable(key, file, error) from error
        if key != self.label_key and not bool(torch.isfinite(item.tensor.as_tensor()).all()):
            raise SourceError(f"{file}: holds values that are not finite. Set them to a number, or leave the case out.")
        return item

    def _nifti(self, file: str) -> _Item:
        volume = read_volume(Path(file))
        header = volume.header.copy()
        header.set_data_dtype(volume.array.dtype)
        kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        opened = _Opened(kind(volume.array, volume.affine, header))
        return _Item(self.load_nifti(file, reader=opened), volume.array, file, volume.place)

    def _other(self, file: str) -> _Item:
        if not Path(file).exists():
            raise UnreadableError(f"{file}: missing.")
        tensor = self.load_other(file)
        if tensor.is_complex():
            raise SourceError(f"{file}: holds complex numbers; expected one number a voxel. Save the magnitude.")
        placeless = file.lower().endswith(_PLACELESS)
        place = None if placeless else Place(_usable(np.asarray(tensor.affine), file))
        return _Item(tensor.to(torch.float32), tensor.as_tensor(), file, place)

    def _check_values(self, label: _Item) -> None:
        if label.tensor.shape[0] != 1:
            raise ValueError(
                f"label {label.file!r}: expected one class number a voxel, got {label.tensor.shape[0]} channels. Save "
                "a mask of class numbers; colours and one-hot channels are not guessed at."
            )
        check_label(label.stored, self.num_classes, self.ignore_index, what=f"label {label.file!r}")

    def _beside(self, image: _Item, label: _Item) -> _Item:
        """The image, with as many axes as its label, after comparing the two."""
        if image.tensor.ndim < label.tensor.ndim and label.tensor.shape[-1] == 1:
            image = _as_slice(image)
        if self.geometry == "check":
            _check_place(image, label)
        else:
            _check_sizes(image, label)
        return image


class _Item(NamedTuple):
    """Content of a file: channel-first tensor, values as stored, the file's name and place (None for a picture)."""

    tensor: MetaTensor
    stored: Any
    file: str
    place: Place | None


class _Opened(NibabelReader):
    """Hand MONAI an image that is read already."""

    def __init__(self, image: nib.Nifti1Image) -> None:
        super().__init__()
        self.image = image

    def read(self, data: Any, **kwargs: Any) -> nib.Nifti1Image:
        self.filenames = [data]
        return self.image


def _files(named: Any) -> list[str]:
    return [str(file) for file in (named if isinstance(named, (list, tuple)) else [named])]


def _stacked(items: Sequence[_Item]) -> _Item:
    """Items of one place as the channels of the first."""
    first = items[0]
    if len(items) == 1:
        return first
    values = torch.cat([item.tensor.as_tensor() for item in items])
    place = first.tensor.affine, first.tensor.meta.get("original_affine", first.tensor.affine)
    return first._replace(tensor=_placed(first.tensor, values, *place))


def _usable(affine: Any, file: str) -> Any:
    try:
        return check_affine(affine, file)
    except ValueError as error:
        raise SourceError(str(error)) from error


def _unreadable(key: Hashable, file: str, error: Exception) -> RuntimeError:
    return UnreadableError(
        f"cannot read {file!r} ({key}): {error} The file is missing, truncated or not an image; convert the data set "
        "again, or take the case out of datalist.json."
    )


def _axes(item: _Item) -> tuple[int, ...]:
    """Sizes along the axes, the third of a picture being one voxel."""
    shape = tuple(item.tensor.shape[1:])
    return (*shape, 1) if len(shape) == 2 else shape


def _check_place(image: _Item, label: _Item) -> None:
    _check_sizes(image, label)
    if image.place is not None and label.place is not None:
        check_geometry(
            image.place,
            label.place,
            _axes(image),
            image.file,
            label.file,
            advice="If the label's header is the wrong one, say --geometry label_from_image; else resample the label.",
        )


def _check_sizes(image: _Item, label: _Item) -> None:
    if _axes(image) != _axes(label):
        raise ValueError(
            f"{image.file!r} has {tuple(image.tensor.shape[1:])} voxels, but its label {label.file!r} has "
            f"{tuple(label.tensor.shape[1:])}; both must be the same grid"
        )


def _as_slice(item: _Item) -> _Item:
    """The picture as a volume of one slice."""
    affine = torch.as_tensor(to_affine_nd(3, np.asarray(item.tensor.affine)))
    return item._replace(tensor=_placed(item.tensor, item.tensor.as_tensor()[..., None], affine, affine))


def _moved(label: _Item, image: _Item) -> _Item:
    """The label where the image is."""
    if label.tensor.ndim < image.tensor.ndim:
        label = _as_slice(label)
    place = image.tensor.affine, image.tensor.meta.get("original_affine", image.tensor.affine)
    return label._replace(tensor=_placed(label.tensor, label.tensor.as_tensor(), *place))


def _placed(tensor: MetaTensor, values: torch.Tensor, affine: torch.Tensor, original: Any) -> MetaTensor:
    """The values with the tensor's header, but for its place."""
    meta = {key: value for key, value in tensor.meta.items() if key != "affine"}
    meta |= {"original_affine": original, "spatial_shape": np.asarray(values.shape[1:])}
    return MetaTensor(values, affine=affine.clone(), meta=meta)
