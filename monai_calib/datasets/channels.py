"""Channels of images that nothing describes: colours or grey, how many, and what to call them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .dataset import Case, SourceError, Volume
from .pictures import is_coloured, read_picture
from .volumes import read_volume, spacing

__all__ = ["channel_names", "check_pixels", "in_colours", "read_grey"]


def in_colours(cases: Sequence[Case], notes: list[str]) -> bool:
    """Whether every picture has colours; one grey picture makes all grey: a network has one number of channels."""
    if len(cases[0].images) > 1:
        return False
    grey: list[str] = []
    coloured: list[str] = []
    for case in cases:
        try:
            (coloured if is_coloured(case.images[0]) else grey).append(case.name)
        except SourceError:
            continue  # told when it is converted
    if coloured and grey:
        odd = min(coloured, grey, key=len)  # the pictures to look at, or to leave out
        listed = ", ".join(odd[:3]) + (", ..." if len(odd) > 3 else "")
        notes.append(
            f"{len(coloured)} of {len(coloured) + len(grey)} pictures in colours, {len(grey)} in grey "
            f"(in {'colours' if odd is coloured else 'grey'}: {listed}): all are read as grey."
        )
    return bool(coloured) and not grey


def read_grey(case: Case) -> Volume:
    """A grey picture, or one for each channel."""
    volumes = [read_picture(path) for path in case.images]
    for volume, path in zip(volumes[1:], case.images[1:], strict=True):
        if volume.array.shape != volumes[0].array.shape:
            raise SourceError(
                f"{path}: {volume.array.shape[:2]} pixels beside {volumes[0].array.shape[:2]} ({case.images[0]}). All "
                "channels must be the same grid."
            )
    return volumes[0] if len(volumes) == 1 else Volume(np.stack([v.array for v in volumes], -1), volumes[0].affine)


def channel_names(case: Case, pictures: bool) -> tuple[str, ...]:
    """Names for channels that nothing names: their numbers, where the first image has several."""
    count = len(case.images)
    if count == 1 and not pictures:
        try:
            shape = read_volume(case.images[0]).array.shape
        except SourceError:
            shape = ()  # told when it is converted
        count = shape[3] if len(shape) == 4 else 1
    return ("image",) if count == 1 else tuple(f"channel_{number}" for number in range(count))


def check_pixels(cases: Sequence[Case], problems: list[str]) -> None:
    """Demand voxels of size 1 of volumes whose unit is said to be the voxel."""
    for case in cases:
        try:
            sizes = spacing(read_volume(case.images[0]).affine)
        except SourceError:
            continue
        if any(abs(size - 1) > 1e-3 for size in sizes):
            shown = " x ".join(f"{size:g}" for size in sizes)
            problems.append(f"{case.images[0]}: --unit px, but the header says voxels of {shown} mm. Leave --unit out.")
