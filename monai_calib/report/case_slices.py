"""Slices of one case: the image, outlines of what is predicted and of its margin, and where the class is open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from monai_calib.words import counted

from .slices import class_colour, data_address, png

__all__ = ["Outline", "SliceView", "outline", "slice_views"]

_LEAST_PAD, _PAD = 8, 0.3
_OPPOSITE = dict(zip("LRPAIS", "RLAPSI", strict=True))


@dataclass(frozen=True)
class Outline:
    """The edge of a mask as an SVG path, its colour, and what it is the edge of."""

    path: str
    colour: str
    what: str


@dataclass(frozen=True)
class SliceView:
    """A slice to be drawn: its size in pixels, its width over height in mm, the image, a layer over it, and outlines.

    ``sides`` are the patient's directions at the left, right, top and bottom, empty where they are not known.
    """

    name: str
    width: int
    height: int
    aspect: float
    image: str
    unsettled: str
    outlines: tuple[Outline, ...]
    sides: tuple[str, ...]
    alt: str


def slice_views(
    image: NDArray[Any],
    label: NDArray[Any],
    margins: NDArray[np.bool_],
    unsettled: NDArray[np.bool_],
    affine: NDArray[Any],
    names: Sequence[str],
    placed: bool = True,
    most: int = 3,
) -> list[SliceView]:
    """Up to three slices through what is predicted, across the axis of the widest spacing.

    Args:
        image: ``(x, y, z)``.
        label: predicted class numbers.
        margins: ``(K - 1, x, y, z)``, predicted structures with their margins.
        unsettled: voxels that may be of more than one class.
        affine: voxel to mm.
        names: of the structures.
        placed: whether the affine says where in the patient the image is; a picture's does not.
        most: slices.
    """
    spacing = nib.affines.voxel_sizes(affine)
    axis = 2 if label.shape[2] == 1 or np.allclose(spacing, spacing[2]) else int(np.argmax(spacing))
    low, high = np.percentile(image, (1, 99.5))
    shown = ((image - low) / max(high - low, 1e-9)).clip(0, 1)
    finite = [mask if not mask.all() else label == k for k, mask in enumerate(margins, 1)]
    box = _box(np.any([label > 0, *finite], axis=0), axis)
    codes = nib.aff2axcodes(affine) if placed else ("", "", "")
    views = []
    for number in _chosen(label, axis, most):
        cut = _Cut(axis, number, box, codes)
        outlines = []
        for k, (name, grown) in enumerate(zip(names, margins, strict=True), 1):
            inside = cut(label == k)
            if inside.any():
                outlines.append(Outline(outline(inside), class_colour(k), f"{name}, predicted"))
            wide = cut(grown)
            if wide.any() and not grown.all():
                outlines.append(Outline(outline(wide), class_colour(k), f"{name}, margin"))
        grey, doubtful = cut(shown), cut(unsettled)
        height, width = grey.shape
        u, v = (i for i in range(3) if i != axis)
        views.append(
            SliceView(
                name=f"slice {number + 1} of {label.shape[axis]}",
                width=width,
                height=height,
                aspect=float(width * spacing[u] / (height * spacing[v])),
                image=png(np.repeat(grey[..., None], 3, axis=-1)),
                unsettled=_layer(doubtful),
                outlines=tuple(outlines),
                sides=cut.sides,
                alt=_alt(number, cut(label), doubtful, names),
            )
        )
    return views


def outline(mask: NDArray[np.bool_]) -> str:
    """The edge between inside and outside of a mask ``(rows, columns)``, along pixels, as an SVG path.

    Example:
        >>> outline(np.array([[True]]))
        'M0 0H1M0 1H1M0 0V1M1 0V1'
    """
    padded = np.pad(mask, 1)
    level = [f"M{start} {row}H{stop}" for row, start, stop in _runs(padded[1:, 1:-1] ^ padded[:-1, 1:-1])]
    upright = [f"M{column} {start}V{stop}" for column, start, stop in _runs((padded[1:-1, 1:] ^ padded[1:-1, :-1]).T)]
    return "".join(level + upright)


def _runs(edges: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Row, start and stop of each run of True along the rows."""
    steps = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (rows, starts), (_, stops) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    return list(zip(rows.tolist(), starts.tolist(), stops.tolist(), strict=True))


class _Cut:
    """Cuts a slice out of a volume and turns it as radiologists look at it: the patient's right on the left, front and
    head on top; a picture as it is stored."""

    def __init__(self, axis: int, number: int, box: tuple[slice, ...], codes: Sequence[Any]) -> None:
        self.where = tuple(slice(number, number + 1) if i == axis else part for i, part in enumerate(box))
        self.axis = axis
        across, up = (codes[i] for i in range(3) if i != axis)
        self.mirrored, self.upside = across in ("R", "P"), up in ("A", "S", "R")
        right = _OPPOSITE.get(across, "") if self.mirrored else across or ""
        top = up if self.upside else _OPPOSITE.get(up, "")
        self.sides = (_OPPOSITE.get(right, ""), right, top, _OPPOSITE.get(top, ""))

    def __call__(self, volume: NDArray[Any]) -> NDArray[Any]:
        flat = volume[self.where].squeeze(self.axis).T  # rows along the second axis, downwards
        flat = flat[:, ::-1] if self.mirrored else flat
        return np.ascontiguousarray(flat[::-1] if self.upside else flat)


def _chosen(label: NDArray[Any], axis: int, most: int) -> list[int]:
    """Slices at even steps through the predicted voxels; the middle one if there are none."""
    voxels = (label > 0).sum(axis=tuple(i for i in range(3) if i != axis))
    if not voxels.any():
        return [label.shape[axis] // 2]
    share = voxels.cumsum() / voxels.sum()
    places = [(2 * i + 1) / (2 * most) for i in range(most)]
    return sorted({int(np.searchsorted(share, place)) for place in places})


def _box(anything: NDArray[np.bool_], axis: int) -> tuple[slice, ...]:
    """The part of each axis that holds something, with a border; all of it if nothing does."""
    box = []
    for i, size in enumerate(anything.shape):
        there = np.flatnonzero(anything.any(axis=tuple(j for j in range(3) if j != i)))
        if i == axis or not there.size:
            box.append(slice(0, size))
            continue
        pad = max(_LEAST_PAD, int(_PAD * (there[-1] - there[0])))
        box.append(slice(max(0, int(there[0]) - pad), min(size, int(there[-1]) + pad + 1)))
    return tuple(box)


def _layer(mask: NDArray[np.bool_]) -> str:
    """A mask as a picture of one colour on nothing."""
    from PIL import Image

    pixels = np.zeros((*mask.shape, 4), np.uint8)
    pixels[mask] = (255, 176, 0, 96)
    return data_address(Image.fromarray(pixels))


def _alt(number: int, label: NDArray[Any], unsettled: NDArray[np.bool_], names: Sequence[str]) -> str:
    areas = ", ".join(f"{name} {counted(int((label == k).sum()), 'pixel')}" for k, name in enumerate(names, 1))
    return f"Slice {number + 1}: {areas}; {counted(int(unsettled.sum()), 'pixel')} may be of more than one class."
