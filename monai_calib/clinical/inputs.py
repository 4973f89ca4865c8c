"""Whether an image looks like those that a network was trained on, with a stated rate of false alarms."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_calib.datasets.case import spacing_of
from monai_calib.words import counted

from .conformal import TooFewSubjectsWarning

__all__ = ["ImageCheck", "InputCheck", "image_statistics", "statistic_names"]

PERCENTILES = (1, 25, 50, 75, 99)
_AXES = ("left to right", "back to front", "foot to head")
_RATIO = 0.02  # sizes that differ by less are the same
_SHARE = 0.02  # of the spread of intensities; percentiles that differ by less are the same
_SMOOTH = 1e-6  # the least roughness, so that it has a logarithm
_MOST_SAMPLES, _MOST_NEIGHBOURS = 2**18, 2**22
_NEAREST = 3


class ImageCheck(NamedTuple):
    """``p_value`` of an image among those of training, whether it is ``strange`` at the rate asked for, and why."""

    p_value: float
    strange: bool
    reasons: tuple[str, ...]


def statistic_names(channels: int, axes: int = 3) -> list[str]:
    """Names of the numbers that :func:`image_statistics` gives.

    Example:
        >>> statistic_names(1)[0], statistic_names(1)[-1]
        ('1st percentile of intensity', 'extent foot to head')
    """
    ordinals = {1: "1st"}
    percentiles = [f"{ordinals.get(q, f'{q}th')} percentile" for q in PERCENTILES]
    of = [" of intensity"] if channels == 1 else [f" of channel {k}" for k in range(channels)]
    sizes = [f"{what} {axis}" for what in ("voxel", "extent") for axis in _AXES[:axes]]
    return [f"{name}{one}" for one in of for name in percentiles] + [f"roughness{one}" for one in of] + sizes


def image_statistics(image: ArrayLike, affine: ArrayLike, shape: Sequence[int]) -> NDArray[np.float64]:
    """Few numbers of an image: of each channel five percentiles and the roughness, and sizes along each axis in mm.

    The roughness is the mean difference between neighbours within a slice over that between the outer percentiles.

    Args:
        image: ``(C, *spatial)``, as the network sees it, so that what preparation undoes is no reason for alarm.
        affine: of the image as it came, voxel to mm.
        shape: voxels along its axes as it came.

    Example:
        >>> found = image_statistics(np.arange(101.0).reshape(1, 101, 1, 1), np.diag([2.0, 1, 1, 1]), (101, 1, 1))
        >>> found[:5].tolist(), round(float(found[5]), 4), float(found[-3])
        ([1.0, 25.0, 50.0, 75.0, 99.0], 0.0102, 202.0)
    """
    values = np.asarray(image)
    flat = values.reshape(len(values), -1)
    percentiles = np.percentile(flat[:, :: max(1, flat.shape[1] // _MOST_SAMPLES)], PERCENTILES, axis=1).T
    slices = values[..., :: max(1, flat.shape[1] // _MOST_NEIGHBOURS)] if values.ndim == 4 else values
    steps = [np.abs(np.diff(slices.astype(np.float64), axis=axis)) for axis in (1, 2) if slices.shape[axis] > 1]
    between = np.mean([step.reshape(len(step), -1).mean(1) for step in steps], axis=0) if steps else 0.0
    roughness = np.maximum(between / np.maximum(percentiles[:, -1] - percentiles[:, 0], 1e-12), _SMOOTH)
    matrix = np.asarray(affine, dtype=np.float64)
    axes = len(matrix) - 1
    spacing = np.asarray(spacing_of(matrix, axes))
    counts = np.asarray([*shape, *[1] * axes][:axes], dtype=np.float64)
    order = np.argsort(nib.io_orientation(matrix)[:, 0]) if axes == 3 else np.arange(axes)
    return np.concatenate([percentiles.ravel(), roughness, spacing[order], (spacing * counts)[order]])


class InputCheck:
    """Warns of an image unlike those of training, by a conformal test.

    An image is as strange as the most lonely of its numbers: their mean distance to the three nearest of the other
    images, the new one among all, over the spread (10th to 90th percentile) of that number; sizes by their logarithm.
    Two scanners whose images differ are both at home, and something between them is not. With ``n`` images seen, the
    p-value is ``(1 + number of images at least as strange as the new one) / (n + 1)``, and the image is called strange
    if that is at most ``false_alarms``.

    **Guarantee.** If the images seen and the new one are exchangeable, it is called strange with a probability of at
    most ``false_alarms``. Nothing is promised of images that are strange: the check knows intensities and sizes, and
    no shapes. ``1 / false_alarms - 1`` images are needed for an alarm; with fewer there is none. Of a subject with
    several images one, drawn at random, is kept: subjects must be exchangeable, not images.

    Args:
        channels: of the images.
        axes: spatial ones.
        false_alarms: largest share of images like those of training that may be called strange.

    Source: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005 (full conformal prediction, by
        distances to nearest neighbours).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> check = InputCheck(1)
        >>> def image(spread: float) -> NDArray[np.float64]:
        ...     return image_statistics(rng.normal(0, spread, (1, 6, 6, 6)), np.eye(4), (6, 6, 6))
        >>> for number in range(60):
        ...     check.update(image(1), str(number))
        >>> found = check.apply(image(5))
        >>> found.strange, round(found.p_value, 4), len(found.reasons)  # the first in 61
        (True, 0.0164, 3)
    """

    def __init__(self, channels: int, axes: int = 3, false_alarms: float = 0.02) -> None:
        if not 0 < false_alarms < 1:
            raise ValueError(f"false_alarms: expected between 0 and 1, got {false_alarms}")
        self.channels, self.axes, self.false_alarms = channels, axes, float(false_alarms)
        self._rows: list[NDArray[np.float64]] = []
        self._of_subject: dict[str, tuple[int, int]] = {}
        self._draw = np.random.default_rng(0)

    @property
    def fewest(self) -> int:
        """Number of images without which nothing can be called strange."""
        return math.ceil(1 / self.false_alarms - 1 - 1e-9)

    @property
    def seen(self) -> int:
        """Number of images kept, one a subject."""
        return len(self._rows)

    def update(self, statistics: ArrayLike, subject: str | None = None) -> None:
        """Add an image of training, by its :func:`image_statistics`."""
        row = np.array(statistics, dtype=np.float64)
        expected = len(statistic_names(self.channels, self.axes))
        if row.shape != (expected,) or not np.isfinite(row).all():
            raise ValueError(f"statistics: expected {expected} finite numbers, got {row.tolist()}")
        place, images = self._of_subject.get(str(subject), (len(self._rows), 0)) if subject else (len(self._rows), 0)
        if place == len(self._rows):
            self._rows.append(row)
        elif self._draw.random() < 1 / (images + 1):  # each of a subject's images stays with the same probability
            self._rows[place] = row
        if subject:
            self._of_subject[str(subject)] = (place, images + 1)

    def fit(self) -> None:
        """Look whether there are enough images. Warns where there are not; nothing is called strange then."""
        if self.seen < self.fewest:
            warnings.warn(
                f"images like those of training: a false-alarm rate of {self.false_alarms:g} needs "
                f"{counted(self.fewest, 'subject')}, the fit had {self.seen}; no image will be called strange",
                TooFewSubjectsWarning,
                stacklevel=2,
            )

    def apply(self, statistics: ArrayLike) -> ImageCheck:
        """Compare a new image, by its :func:`image_statistics`, with those seen."""
        new = np.asarray(statistics, dtype=np.float64)
        if not self._rows or new.shape != self._rows[0].shape:
            raise ValueError(
                f"statistics: expected {len(statistic_names(self.channels, self.axes))} numbers of an image"
            )
        known = np.stack(self._rows)
        distances = self._distances(np.vstack([known, new]))
        scores = distances.max(1)
        p_value = float((1 + (scores[:-1] >= scores[-1]).sum()) / len(scores))
        strange = p_value <= self.false_alarms * (1 + 1e-9)
        return ImageCheck(p_value, strange, self._reasons(known, new, distances[-1]) if strange else ())

    def _distances(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        intensities = len(PERCENTILES) * self.channels
        values = np.hstack([rows[:, :intensities], np.log(rows[:, intensities:])])
        middle = np.median(values, axis=0)[:intensities].reshape(self.channels, -1)
        least = _SHARE * np.repeat(middle[:, -1] - middle[:, 0], len(PERCENTILES))
        floor = np.concatenate([least, np.full(values.shape[1] - intensities, _RATIO)])
        spread = np.maximum(np.maximum(np.ptp(np.percentile(values, (10, 90), axis=0), axis=0), floor), 1e-12)
        return np.stack([_loneliness(column) for column in values.T], axis=1) / spread

    def _reasons(
        self, known: NDArray[np.float64], new: NDArray[np.float64], distances: NDArray[np.float64]
    ) -> tuple[str, ...]:
        """The numbers that lie beyond all of training's, the furthest first; the furthest if none does."""
        low, high = known.min(0), known.max(0)
        order = np.argsort(-distances)
        beyond = [k for k in order if not low[k] <= new[k] <= high[k]] or [order[0]]
        names = statistic_names(self.channels, self.axes)
        intensities = len(PERCENTILES) * self.channels
        told = []
        for k in beyond[:3]:
            value = f"{names[k]} {new[k]:.3g}{'' if k < intensities + self.channels else ' mm'}"
            inside = low[k] <= new[k] <= high[k]
            told.append(
                f"{value}, {'far from those' if inside else 'beyond those'} of training ({low[k]:.3g} … {high[k]:.3g})"
            )
        return tuple(told)

    def to_json(self) -> dict[str, Any]:
        """Settings and the numbers of the images seen, no names."""
        rows = [[float(f"{value:.7g}") for value in row] for row in self._rows]
        return {"channels": self.channels, "axes": self.axes, "false_alarms": self.false_alarms, "images": rows}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputCheck:
        """Read what :meth:`to_json` wrote."""
        made = cls(data["channels"], data["axes"], data["false_alarms"])
        for row in data["images"]:
            made.update(row)
        return made


def _loneliness(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean distance of each number to the nearest of the others."""
    nearest = min(_NEAREST, len(values) - 1)
    apart = np.abs(values[:, None] - values)
    return np.asarray(np.partition(apart, nearest, axis=1)[:, : nearest + 1].sum(1) / nearest)  # itself is 0 away
