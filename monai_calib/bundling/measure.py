"""Take the fingerprint of a data folder: headers of all training images, voxels of some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from monai_calib.datasets.checksums import sha256
from monai_calib.datasets.datalist import SPLITS, load_datalist, read_datalist
from monai_calib.datasets.dataset import SourceError
from monai_calib.datasets.volumes import read_channels, read_volume, spacing
from monai_calib.words import counted

from .fingerprint import ANISOTROPIC, Box, Fingerprint, Intensity

__all__ = ["take_fingerprint"]

MOST_READ = 64
"""Training images whose voxels are read, evenly out of the list: enough for percentiles, minutes for large CT."""
SAMPLED = 20_000
"""Voxels of an image that enter the percentiles."""


def take_fingerprint(folder: str | Path) -> Fingerprint:
    """Read the list of a data folder and its training cases.

    Args:
        folder: written by ``python -m monai_calib prepare``, a data script or ``phantom``.

    Raises: ``FileNotFoundError`` or ``ValueError`` naming the file: no list, a split without cases, a subject in two
        splits, a file that cannot be read, an image with other channels than the list says, a label that is no class.
    """
    listing = Path(folder) / "datalist.json"
    cases = {split: load_datalist(folder, split) for split in SPLITS}
    content = read_datalist(listing)
    subjects = {split: {_subject(case) for case in cases[split]} for split in SPLITS}
    _check_subjects(subjects, listing)
    by_image: dict[tuple[str, ...], list[str]] = {}
    for case in cases["training"]:
        by_image.setdefault(_files(case["image"]), []).append(case["label"])
    images = list(by_image)
    places = [_place(image[0]) for image in images]
    orient = _can_be_turned(places) and content.get("unit", "mm") == "mm"
    orders = [_order(affine) if orient else (0, 1, 2) for _, affine in places]
    chosen = [round(k) for k in np.linspace(0, len(images) - 1, min(MOST_READ, len(images)))]
    names = _names(content.get("labels"))
    channels = _names(content.get("modality", content.get("channel_names")))
    found = _Voxels(channels, names, _ignored(content, listing))
    for k in chosen:
        found.add(images[k], by_image[images[k]], orders[k])
    shapes = tuple(tuple(shape[axis] for axis in order) for (shape, _), order in zip(places, orders, strict=True))
    return Fingerprint(
        name=_text(content.get("name")) or Path(folder).resolve().name,
        description=_text(content.get("description")),
        licence=_text(content.get("licence")) or "not stated",
        unit=str(content.get("unit", "mm")),
        pictures=all(shape[2] == 1 for shape in shapes),
        channels=found.channels,
        labels=found.labels,
        ignore_index=found.ignore_index,
        regions=_regions(content.get("regions"), len(found.labels)),
        cases={split: len(cases[split]) for split in SPLITS},
        subjects={split: len(subjects[split]) for split in SPLITS},
        raters=max(len(labels) for labels in by_image.values()),
        posterior=all(isinstance(entry, dict) and "posterior" in entry for entry in content["test"]),
        orient=orient,
        shapes=shapes,
        spacings=tuple(
            tuple(spacing(affine)[axis] for axis in order) for (_, affine), order in zip(places, orders, strict=True)
        ),
        intensity=found.intensity(),
        shares=found.shares(),
        boxes=tuple(found.boxes),
        read=len(chosen),
        datalist=sha256(listing),
    )


class _Voxels:
    """Statistics of the voxels of some cases."""

    def __init__(self, channels: Sequence[str], labels: Sequence[str], ignore_index: int | None) -> None:
        self.channels = tuple(channels)
        self.ignore_index = ignore_index
        self._labels = tuple(labels)
        self._counts: dict[int, int] = {}
        self._samples: list[NDArray[Any]] = []
        self._foreground: list[NDArray[Any]] = []
        self._ends: list[tuple[NDArray[Any], NDArray[Any]]] = []
        self._whole = True
        self.boxes: list[tuple[tuple[int, ...], tuple[Box | None, ...]]] = []

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes: the list's, else numbers up to the highest label found."""
        return self._labels or ("background", *(f"label_{k}" for k in range(1, max(self._counts) + 1)))

    def add(self, image: Sequence[str], labels: Sequence[str], order: Sequence[int]) -> None:
        """Read an image and its labels, one a rater."""
        array = read_channels([Path(file) for file in image]).array
        voxels = array.reshape(*array.shape[:3], -1)
        if not self.channels:
            count = voxels.shape[3]
            self.channels = ("image",) if count == 1 else tuple(f"channel_{k}" for k in range(count))
        if voxels.shape[3] != len(self.channels):
            raise SourceError(
                f"{image[0]}: expected {counted(len(self.channels), 'channel')} as datalist.json names, got "
                f"{voxels.shape[3]}. Correct the list, or the image."
            )
        flat = voxels.reshape(-1, voxels.shape[3])
        self._ends.append((flat.min(0), flat.max(0)))
        self._whole = self._whole and (array.dtype.kind in "iub" or bool((flat == np.round(flat)).all()))
        self._samples.append(_some(flat))
        for file in labels:
            label = read_volume(Path(file)).array
            if label.shape[:3] != voxels.shape[:3]:
                raise SourceError(
                    f"{file}: expected {voxels.shape[:3]} voxels as in the image ({image[0]}), got {label.shape[:3]}. "
                    "Both must be the same grid: resample the label to the image."
                )
            label = label.reshape(label.shape[:3])
            self._count(label, file)
            self.boxes.append(_boxes(label.transpose(order), self._labels or range(max(self._counts) + 1)))
            inside = (label != 0) & (label != self.ignore_index)
            self._foreground.append(_some(flat[inside.reshape(-1)]))

    def _count(self, label: NDArray[Any], file: str) -> None:
        values, counts = np.unique(label, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            if value == self.ignore_index:
                continue
            if value != int(value) or value < 0 or (self._labels and value >= len(self._labels)):
                raise SourceError(
                    f"{file}: expected class numbers from 0 to {len(self._labels) - 1}, got {value:g}. Name the value "
                    "in datalist.json (python -m monai_calib prepare --labels), or correct the label."
                )
            self._counts[int(value)] = self._counts.get(int(value), 0) + count

    def shares(self) -> tuple[float, ...]:
        """Share of each class among the voxels that count."""
        counts = [self._counts.get(k, 0) for k in range(len(self.labels))]
        return tuple(count / max(1, sum(counts)) for count in counts)

    def intensity(self) -> tuple[Intensity, ...]:
        """Statistics of each channel."""
        sample = np.concatenate(self._samples).astype(np.float64)
        inside = np.concatenate(self._foreground).astype(np.float64)
        inside = inside if len(inside) else sample
        least = np.min([ends[0] for ends in self._ends], axis=0)
        most = np.max([ends[1] for ends in self._ends], axis=0)
        rows = []
        for c in range(sample.shape[1]):
            low, median, high = (float(value) for value in np.percentile(sample[:, c], (0.5, 50, 99.5)))
            dark, bright = (float(value) for value in np.percentile(inside[:, c], (0.5, 99.5)))
            mean, deviation = float(sample[:, c].mean()), float(sample[:, c].std())
            zeros = float((sample[:, c] == 0).mean())
            ends = float(least[c]), float(most[c])
            rows.append(
                Intensity(ends[0], low, median, high, ends[1], mean, deviation, zeros, self._whole, (dark, bright))
            )
        return tuple(rows)


def _some(voxels: NDArray[Any]) -> NDArray[Any]:
    return voxels[:: max(1, len(voxels) // SAMPLED)]


def _boxes(label: NDArray[Any], classes: Any) -> tuple[tuple[int, ...], tuple[Box | None, ...]]:
    found: list[Box | None] = []
    for k in range(1, len(classes)):
        inside = label == k
        if not inside.any():
            found.append(None)
            continue
        ends = [np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        found.append((tuple(int(e[0]) for e in ends), tuple(int(e[-1]) + 1 for e in ends)))
    return label.shape, tuple(found)


def _place(file: str) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Voxels along three axes, and the affine."""
    if file.endswith((".nii", ".nii.gz")):
        header: Any = nib.load(file)
        return tuple(int(n) for n in (*header.shape, 1, 1)[:3]), np.asarray(header.affine, dtype=np.float64)
    volume = read_volume(Path(file))
    return tuple(int(n) for n in volume.array.shape[:3]), volume.affine


def _order(affine: NDArray[np.float64]) -> tuple[int, ...]:
    """Axes as stored in the order right, anterior, superior."""
    return tuple(int(axis) for axis in np.argsort(nib.io_orientation(affine)[:, 0]))


def _can_be_turned(places: Sequence[tuple[tuple[int, ...], NDArray[np.float64]]]) -> bool:
    """Whether slices stay slices, where they are far apart, when axes are turned to the nearest of the body."""
    for shape, affine in places:
        sizes = spacing(affine)
        coarse = int(np.argmax(sizes))
        if shape[2] == 1 or (sizes[coarse] >= ANISOTROPIC * min(sizes) and _order(affine)[2] != coarse):
            return False
    return True


def _check_subjects(subjects: Mapping[str, set[str]], listing: Path) -> None:
    for first, second in combinations(SPLITS, 2):
        both = sorted(subjects[first] & subjects[second])
        if both:
            raise SourceError(
                f"{listing}: expected every subject in one split, got {both[0]} in {first} and {second} "
                f"({len(both)} such). Add subjects, or split anew: python -m monai_calib prepare."
            )


def _subject(case: Mapping[str, Any]) -> str:
    return str(case.get("subject", case["case"]))


def _files(named: Any) -> tuple[str, ...]:
    return tuple(named) if isinstance(named, list) else (named,)


def _ignored(content: Mapping[str, Any], listing: Path) -> int | None:
    ignored = content.get("ignore_index")
    if ignored is not None and type(ignored) is not int:
        raise SourceError(f"{listing}: ignore_index: expected a whole number, got {ignored!r}. Correct it.")
    return ignored


def _names(listed: Any) -> tuple[str, ...]:
    """Names by number, from a mapping or a list; none if there is neither."""
    if isinstance(listed, Mapping):
        listed = [listed[key] for key in sorted(listed, key=lambda key: int(key))]
    return tuple(_text(name) or f"class {k}" for k, name in enumerate(listed)) if isinstance(listed, list) else ()


def _text(value: Any) -> str:
    """A text that a configuration does not take for an expression, a reference or the name of a value."""
    text = " ".join(str(value or "").split()).replace("{{", "(").replace("}}", ")")
    return text.lstrip("$@%") if text[:1] in ("$", "@", "%") else text


def _regions(named: Any, classes: int) -> dict[str, list[int]]:
    if not isinstance(named, Mapping):
        return {}
    found = {_text(name): [value for value in values if 0 < value < classes] for name, values in named.items()}
    return {name: values for name, values in found.items() if values}
