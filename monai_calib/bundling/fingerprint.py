"""The fingerprint of a data set: sizes, spacings, intensities and class shares of its training cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ANISOTROPIC", "Box", "Fingerprint", "Intensity"]

FORMAT = "monai_calib/fingerprint/1"
ANISOTROPIC = 3.0
"""Slices this many pixels apart, or more, are no volume with voxels alike along its axes. As in nnU-Net."""

Box = tuple[tuple[int, ...], tuple[int, ...]]
"""First voxel of a structure along each axis, and the one behind its last."""


@dataclass(frozen=True)
class Intensity:
    """Intensities of one channel over the images read: ``least`` to ``most``, and per cent of voxels below a value.

    Attributes:
        zeros: share of voxels that are exactly 0.
        whole: whether all are whole numbers.
        foreground: 0.5th and 99.5th percentile of the voxels that bear a class other than 0.
    """

    least: float
    low: float
    median: float
    high: float
    most: float
    mean: float
    deviation: float
    zeros: float
    whole: bool
    foreground: tuple[float, float]


@dataclass(frozen=True)
class Fingerprint:
    """Facts about a data folder, of its training cases where nothing else is said.

    Attributes:
        name, description, licence: of the data set, as its list says.
        unit: ``"mm"``, or ``"px"`` where the size of a pixel is not known.
        pictures: images of one slice.
        channels, labels: their names; of the labels the first is the background.
        ignore_index: label that counts nowhere.
        regions: unions of classes that overlap, by name.
        cases, subjects: how many of each split.
        raters: most labels of one image.
        posterior: whether the list names the known probabilities of every test case.
        orient: whether axes can be turned to right, anterior, superior and slices stay slices.
        shapes, spacings: of every training image, axes turned if ``orient``.
        intensity: of each channel.
        shares: of each class among the voxels that count.
        boxes: of some training labels the shape, and of each class (the background left out) where it lies, if it does.
        read: how many training images were read for intensities, shares and boxes.
        datalist: SHA-256 of the list.
    """

    name: str
    description: str
    licence: str
    unit: str
    pictures: bool
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    ignore_index: int | None
    regions: dict[str, list[int]]
    cases: dict[str, int]
    subjects: dict[str, int]
    raters: int
    posterior: bool
    orient: bool
    shapes: tuple[tuple[int, ...], ...]
    spacings: tuple[tuple[float, ...], ...]
    intensity: tuple[Intensity, ...]
    shares: tuple[float, ...]
    boxes: tuple[tuple[tuple[int, ...], tuple[Box | None, ...]], ...]
    read: int
    datalist: str

    @property
    def shape(self) -> NDArray[np.float64]:
        """Median voxels along each axis."""
        return np.median(np.asarray(self.shapes, float), axis=0)

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Median size of a voxel along each axis."""
        return np.median(np.asarray(self.spacings, float), axis=0)

    @property
    def anisotropic(self) -> bool:
        """Whether slices are several pixels apart."""
        return bool(self.spacing[2] >= ANISOTROPIC * self.spacing[:2].min())

    @property
    def spacings_differ(self) -> NDArray[np.bool_]:
        """Whether voxels of the training images differ by more than 5 %, along each axis."""
        sizes = np.asarray(self.spacings, float)
        return np.asarray(sizes.max(0) > 1.05 * sizes.min(0))

    @property
    def reads_pictures(self) -> bool:
        """Whether PNG and the like can stand for an image: one slice, pixels of size 1, grey or in colours."""
        grey_or_colours = len(self.channels) == 1 or self.channels == ("red", "green", "blue")
        return self.pictures and grey_or_colours and bool(np.allclose(np.asarray(self.spacings)[:, :2], 1, atol=1e-3))

    @property
    def modality(self) -> str:
        """CT, MR, US, RGB or OT (other), by the names of the channels; CT also by its intensities."""
        names = " ".join(self.channels).lower().replace("_", " ").split()
        joined = " ".join(self.channels).lower()
        first = self.intensity[0]
        if len(self.channels) == 1 and ("ct" in names or (first.whole and first.least <= -900 and first.most > 200)):
            return "CT"
        if any(word in joined for word in ("mri", "flair", "cine", "adc")) or {"t1", "t2", "mr", "t1c"} & set(names):
            return "MR"
        if "ultrasound" in joined or "us" in names:
            return "US"
        return "RGB" if self.channels == ("red", "green", "blue") else "OT"

    def to_json(self) -> dict[str, Any]:
        """Plain values; of sizes and spacings the least, the median and the most."""
        kept = ("name", "unit", "pictures", "channels", "labels", "ignore_index", "regions", "cases", "subjects")
        return {
            "format": FORMAT,
            **{name: _plain(getattr(self, name)) for name in kept},
            "raters": self.raters,
            "posterior": self.posterior,
            "modality": self.modality,
            "axes": "right, anterior, superior" if self.orient else "as stored",
            "shape": _spread(self.shapes),
            "spacing": _spread(self.spacings),
            "intensity": [{name: _plain(value) for name, value in vars(channel).items()} for channel in self.intensity],
            "class_shares": {name: round(share, 6) for name, share in zip(self.labels, self.shares, strict=True)},
            "training_images_read": self.read,
            "datalist_sha256": self.datalist,
        }

    def in_words(self) -> str:
        """Lines for the terminal."""
        sizes, unit = np.asarray(self.shapes), self.unit
        spacings = sorted({_times(sizes) for sizes in self.spacings})
        voxels = spacings[0] if len(spacings) == 1 else f"median {_times(self.spacing)}, {len(spacings)} kinds"
        shares = ", ".join(f"{name} {100 * share:.3g} %" for name, share in zip(self.labels, self.shares, strict=True))
        lines = [
            f"{self.name}: {_counts(self.cases)} cases of {_counts(self.subjects)} subjects "
            "(training, validation, test)" + (f", up to {self.raters} raters" if self.raters > 1 else ""),
            f"{'pictures' if self.pictures else 'volumes'} of {_times(sizes.min(0))} to {_times(sizes.max(0))}, median "
            f"{_times(self.shape)}; voxels {voxels} {unit}",
            f"classes: {shares}" + (f"; {self.ignore_index} counts nowhere" if self.ignore_index is not None else ""),
            *(
                f"channel {name}: {i.least:g} to {i.most:g}, median {i.median:g}, deviation {i.deviation:.3g}, "
                f"{100 * i.zeros:.2g} % zero"
                for name, i in zip(self.channels, self.intensity, strict=True)
            ),
            f"modality: {self.modality}",
        ]
        return "\n".join(lines)


def _spread(values: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    array = np.asarray(values, float)
    found = {"least": array.min(0), "median": np.median(array, 0), "most": array.max(0)}
    return {name: [round(float(value), 4) for value in row] for name, row in found.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def _times(sizes: Sequence[float] | NDArray[Any]) -> str:
    return " x ".join(f"{float(size):g}" for size in sizes)


def _counts(by_split: dict[str, int]) -> str:
    return " + ".join(map(str, by_split.values()))
