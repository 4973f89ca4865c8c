"""Stored maps with their labels, one case in memory at a time, as often as they are asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_calib.datasets.case import check_geometry, spacing_of
from monai_calib.datasets.dataset import SourceError, Volume
from monai_calib.datasets.layouts.layout import is_picture
from monai_calib.datasets.pictures import PLACE_OF_PICTURE, mask_values, read_picture
from monai_calib.datasets.volumes import read_volume, remap_labels
from monai_calib.files import FileError
from monai_calib.posthoc.stream import LogitCase
from monai_calib.predictions.folders import find_images, find_labels, find_maps
from monai_calib.predictions.pictures import PictureMapsPerClass
from monai_calib.predictions.settings import Settings
from monai_calib.predictions.stored import Grid, MapFolder, StoredMap
from monai_calib.predictions.values import probabilities_of

__all__ = ["IGNORED", "StoredCase", "StoredCases"]

IGNORED = 255
"""Label of voxels that count nowhere, once it has been read."""
_SPACING_DIFFERS = 0.02


@dataclass
class StoredCase:
    """One case in memory.

    Attributes:
        name, subject: how it is called, and whom it was taken from.
        probabilities: ``(K, x, y, z)`` float32.
        label: ``(x, y, z)`` uint8 class numbers, :data:`IGNORED` where nothing counts.
        spacing: in mm.
        found: the map as stored.
        floored: how many numbers were 0 and have been raised.
    """

    name: str
    subject: str
    probabilities: torch.Tensor
    label: torch.Tensor
    spacing: tuple[float, ...]
    found: StoredMap
    floored: int
    ignore_index: int | None = None
    logits_stored: bool = False

    @property
    def logits(self) -> torch.Tensor:
        """Logits as stored, or logarithms of the probabilities."""
        if self.logits_stored:
            return torch.from_numpy(np.array(self.found.values, np.float32))  # contiguous, and a copy
        return self.probabilities.log()

    def as_logit_case(self) -> LogitCase:
        """The case as a fit sees it."""
        return LogitCase(
            self.name,
            self.logits,
            self.label,
            spacing=self.spacing,
            ignore_index=self.ignore_index,
            subject=self.subject,
        )


@dataclass
class StoredCases:
    """The cases that have a map, in the order of their names; iterating reads one at a time and keeps none.

    Args:
        settings: where they lie and how to read them.
        subjects: whom each case was taken from; the case itself where it is not named.
        chosen: names of the cases to take; all that have a map by default.

    Attributes:
        unmapped: labels that have no map, and are left out.

    Raises: :class:`~monai_calib.files.FileError` for folders that do not fit; while iterating, naming the file.
    """

    settings: Settings
    subjects: Mapping[str, str] = field(default_factory=dict)
    chosen: Sequence[str] | None = None

    def __post_init__(self) -> None:
        given = self.settings
        self.labels = find_labels(given.labels)
        self.maps: MapFolder = find_maps(
            given.probabilities, list(self.labels), given.classes.names, given.axes, given.format
        )
        self.names = sorted(self.maps.files) if self.chosen is None else list(self.chosen)
        missing = [name for name in self.names if name not in self.maps.files]
        if missing:
            raise FileError(
                f"{given.probabilities}: expected a map for each case, got none for {', '.join(missing[:5])}. "
                "Put the maps back, or measure again."
            )
        self.unmapped = sorted(set(self.labels) - set(self.maps.files))
        self.images = {} if given.images is None else find_images(given.images, self.names)

    @property
    def unit(self) -> str:
        """``"px"`` where maps are pictures, whose pixels have no size unless one was said, else ``"mm"``."""
        return "px" if self.maps.kind == PictureMapsPerClass.kind and self.settings.spacing is None else "mm"

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[StoredCase]:
        return (self.read(name) for name in self.names)

    def numbered(self, without: Collection[int] = ()) -> Iterator[tuple[int, LogitCase | None]]:
        """The cases as fits see them, with their numbers; None for those of ``without``, which are not read."""
        for number, name in enumerate(self.names):
            yield number, None if number in without else self.read(name).as_logit_case()

    def read(self, name: str) -> StoredCase:
        """Read one case and check it.

        Raises: :class:`~monai_calib.files.FileError` naming the file: map or label of another shape or place, values
            that are no probabilities or no class of the label.
        """
        path = self.labels[name]
        volume = _read_label(path)
        label = self._class_numbers(volume, path)
        found = self.maps.read(name, Grid(label.shape, volume.affine), self.settings.classes.count)
        self._check_place(found, volume, path)
        spacing = self.settings.spacing or spacing_of(volume.affine) or (1.0, 1.0, 1.0)
        return self._made(name, found, torch.from_numpy(label), spacing)

    def with_values(self, case: StoredCase, values: NDArray[Any]) -> StoredCase:
        """The same case with another map, which is checked like one that was read."""
        return self._made(case.name, case.found._replace(values=values), case.label, case.spacing)

    def image(self, name: str, shape: Sequence[int]) -> NDArray[Any] | None:
        """The image ``(x, y, z)`` of a case, if images are known."""
        if name not in self.images:
            return None
        path = self.images[name]
        array = (read_picture(path) if is_picture(path) else read_volume(path)).array
        if array.shape[:3] != tuple(shape):
            raise FileError(
                f"{path}: expected {tuple(shape)} voxels as in the label, got {array.shape}. Name another folder, or "
                "leave --images out."
            )
        return array if array.ndim == 3 else array[..., 0]

    def _made(self, name: str, found: StoredMap, label: torch.Tensor, spacing: tuple[float, ...]) -> StoredCase:
        logits, ignored = self.settings.logits, self.settings.classes.ignore
        first, *others = self.maps.files[name]
        beside = ", ".join(str(path.relative_to(self.maps.folder)) for path in others)
        what = f"{first} with {beside}" if beside else first
        values, floored = probabilities_of(found.values, found.dtype, logits, what)
        count = self.settings.classes.count or len(values)
        if len(values) != count or (not self.settings.classes.count and int(self._highest(label)) >= count):
            raise FileError(
                f"{self.labels[name]}: expected class numbers from 0 to {len(values) - 1}, as many as the map "
                f"({found.file}) has channels, got {int(self._highest(label))}. Name the classes with --classes "
                "name=value ..., or the value to leave out with --ignore_index."
            )
        ignore_index = None if ignored is None else IGNORED
        subject = self.subjects.get(name, name)
        return StoredCase(name, subject, values, label, spacing, found, floored, ignore_index, logits)

    @staticmethod
    def _highest(label: torch.Tensor) -> torch.Tensor:
        return label.masked_fill(label == IGNORED, 0).max()

    def _class_numbers(self, volume: Volume, path: Path) -> NDArray[np.uint8]:
        if volume.array.ndim > 3 and volume.array.shape[3:] != (1,) * (volume.array.ndim - 3):
            raise FileError(
                f"{path}: expected one class number a voxel, got shape {volume.array.shape}. Save the label as a "
                "volume of three axes."
            )
        array = volume.array.reshape(volume.array.shape[:3])
        try:
            return remap_labels(array, self.settings.classes.label_map(IGNORED), path)
        except SourceError as error:
            raise FileError(
                f"{error} Name the classes with --classes name=value ..., or the value to leave out with "
                "--ignore_index."
            ) from error

    def _check_place(self, found: StoredMap, label: Volume, path: Path) -> None:
        if is_picture(path):
            return
        if found.place is not None:
            advice = "The map is of another volume, or its header was lost: write it with the label's geometry."
            try:
                check_geometry(found.place, label.place, label.array.shape[:3], found.file, path, advice=advice)
            except ValueError as error:
                raise FileError(str(error).replace("label and image", "label and map")) from error
        elif found.spacing is not None:
            theirs = spacing_of(label.affine) or ()
            if not np.allclose(found.spacing, theirs, rtol=_SPACING_DIFFERS):
                raise FileError(
                    f"{found.file}: expected voxels of {_rounded(theirs)} mm as in the label ({path}), got "
                    f"{_rounded(found.spacing)} by its properties. It is a map of another volume: name "
                    "the right folder."
                )


def _read_label(path: Path) -> Volume:
    if is_picture(path):
        return Volume(mask_values(path)[..., None], PLACE_OF_PICTURE)
    return read_volume(path)


def _rounded(sizes: Sequence[float]) -> list[float]:
    return [round(float(size), 3) for size in sizes]
