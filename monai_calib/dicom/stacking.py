"""Slices of a series as one regular stack: their order, their geometry, and what keeps them from being a volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from monai_calib.words import counted

__all__ = ["LPS_TO_RAS", "instance_gaps", "stack_slices"]

# DICOM's axes run to the left, the back and the head; NIfTI's to the right, the front and the head.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_NEEDED = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "FrameOfReferenceUID")
# Positions are decimal strings, which some scanners round to 0.01 mm, and direction cosines to few digits.
_DIRECTION_TOLERANCE = 1e-3
_SPACING_TOLERANCE = 0.01  # of the distance of slices
_GAP_TOLERANCE = 0.02  # mm
_SAME_POSITION = 1e-3  # mm
_SMALLEST_SPACING = 1e-3  # mm, a micrometre: less is a broken header


def stack_slices(headers: Sequence[Dataset], series: str) -> tuple[list[int], NDArray[np.float64]]:
    """Order slices along their normal and give the volume's affine.

    With the direction cosines ``r`` along a row and ``c`` along a column, the normal is ``n = r × c`` and a slice at
    position ``p`` lies at ``n · p``. Voxel ``(column, row, slice)`` is then at
    ``p_0 + column Δ_column r + row Δ_row c + slice (p_last - p_0) / (slices - 1)``, turned from LPS to RAS.

    Args:
        headers: one header a slice, in any order.
        series: name of the series, for error messages.

    Returns:
        Indices of the slices from the lowest position along the normal to the highest, and the ``(4, 4)`` affine from
        voxel indices to RAS coordinates in mm.

    Raises:
        ValueError: the slices are no regular volume: a header lacks its geometry, sizes, orientations or frames of
            reference differ, several volumes share the positions (4D), slices are missing, unevenly spaced, or
            shifted against each other (gantry tilt).
    """
    _check_headers(headers, series)
    row, column = _directions(headers, series)
    normal = np.cross(row, column)
    positions = np.array([header.ImagePositionPatient for header in headers], dtype=np.float64)
    depth = positions @ normal
    order = np.argsort(depth, kind="stable")
    _check_repeats(depth[order], [headers[k] for k in order], series)
    _check_spacing(depth[order], headers, order, series)
    step = (positions[order[-1]] - positions[order[0]]) / (len(headers) - 1)
    _check_straight(positions[order], step, normal, [headers[k] for k in order], series)
    row_spacing, column_spacing = (float(value) for value in headers[0].PixelSpacing)
    lps = np.eye(4)
    lps[:3, :3] = np.stack([row * column_spacing, column * row_spacing, step], axis=1)
    lps[:3, 3] = positions[order[0]]
    return [int(index) for index in order], LPS_TO_RAS @ lps


def instance_gaps(headers: Sequence[Dataset]) -> str:
    """Say in a sentence which slices are missing by their instance numbers; nothing where these run on.

    Evenly spaced slices can be every second one of a series of which the others were lost. No error, since the parts
    of a 4D series are numbered like that too.
    """
    try:
        numbers = sorted({int(header.InstanceNumber) for header in headers})
    except (AttributeError, TypeError, ValueError):  # optional, and in some series empty
        return ""
    lost = numbers[-1] - numbers[0] + 1 - len(numbers)
    if not lost:
        return ""
    shown = ", ".join(map(str, numbers[:4])) + (", …" if len(numbers) > 4 else "")
    return (
        f"{lost} instance number(s) are missing between {numbers[0]} and {numbers[-1]} ({shown}). Is every slice there?"
    )


def _numbers(header: Dataset, keyword: str, count: int, series: str) -> NDArray[np.float64]:
    """The values of an attribute, which a broken file may hold as text, NaN or in another number."""
    try:
        value = header.get(keyword)
        values = np.atleast_1d(np.array(value, dtype=np.float64))
    except (TypeError, ValueError):
        values = np.array([np.nan])
    if values.shape != (count,) or not np.isfinite(values).all():
        raise ValueError(
            f"{series}: expected {count} finite number(s) as {keyword} of instance {_instance(header)}, got "
            f"{values.tolist()}; the header is broken"
        )
    return values


def _check_geometry(header: Dataset, series: str) -> None:
    for keyword, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("Rows", 1), ("Columns", 1)):
        _numbers(header, keyword, count, series)
    spacing = _numbers(header, "PixelSpacing", 2, series)
    if spacing.min() < _SMALLEST_SPACING or min(int(header.Rows), int(header.Columns)) < 1:
        raise ValueError(
            f"{series}: expected a PixelSpacing of at least {_SMALLEST_SPACING:g} mm and a pixel or more, got "
            f"{spacing.tolist()} and {header.Rows} × {header.Columns} (instance {_instance(header)}); the header is "
            "broken"
        )


def _check_headers(headers: Sequence[Dataset], series: str) -> None:
    for header in headers:
        missing = [name for name in _NEEDED if header.get(name) in (None, "")]
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise ValueError(
                f"{series} holds a multi-frame object (instance {_instance(header)}); expected one file a slice. "
                "Convert it to single-frame files first"
            )
        if missing:
            raise ValueError(
                f"{series}: instance {_instance(header)} has no {', '.join(missing)}; a volume needs them in every "
                "slice. Is it a series of cross-sectional images?"
            )
        samples = header.get("SamplesPerPixel")
        if samples not in (None, "", 1):
            raise ValueError(
                f"{series} is in colour (instance {_instance(header)} has {samples} values a pixel); expected one"
            )
        _check_geometry(header, series)
    if len(headers) < 2:
        raise ValueError(f"{series} has one slice; a volume needs at least two to know their distance")
    same: dict[str, list[Any]] = {
        "size in pixels": [(int(header.Rows), int(header.Columns)) for header in headers],
        "pixel spacing in mm": [tuple(np.round(np.array(h.PixelSpacing, float), 4).tolist()) for h in headers],
        "frame of reference": [str(header.FrameOfReferenceUID) for header in headers],
        "study": [str(header.get("StudyInstanceUID")) for header in headers],
    }
    for what, values in same.items():
        if len(set(values)) > 1:
            found = ", ".join(
                f"{value} in {counted(count, 'slice')}" for value, count in Counter(values).most_common(4)
            )
            raise ValueError(
                f"{series} mixes slices of different {what}: {found}{_odd(headers, values)}; expected one for the "
                "whole volume"
            )
    patients = [str(header.get("PatientID")) for header in headers]
    if len(set(patients)) > 1:
        raise ValueError(f"{series} mixes slices of several patients{_odd(headers, patients)}; expected one")


def _directions(headers: Sequence[Dataset], series: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    cosines = np.array([header.ImageOrientationPatient for header in headers], dtype=np.float64)
    groups: list[NDArray[np.float64]] = []
    sizes: list[int] = []
    for one in cosines:
        known = [k for k, other in enumerate(groups) if np.abs(one - other).max() < _DIRECTION_TOLERANCE]
        if known:
            sizes[known[0]] += 1
        else:
            groups.append(one)
            sizes.append(1)
    if len(groups) > 1:
        of = [int(np.argmin([np.abs(one - other).max() for other in groups])) for one in cosines]
        found = ", ".join(
            f"{size} along {np.round(group, 3).tolist()}" for group, size in zip(groups[:4], sizes[:4], strict=True)
        )
        raise ValueError(
            f"{series} mixes {len(groups)} orientations of slices: {found}{_odd(headers, of)}; expected one. "
            "Localizers are like that; choose another series, or part the slices"
        )
    row, column = cosines[0, :3], cosines[0, 3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if abs(row @ column) > _DIRECTION_TOLERANCE or max(abs(length - 1) for length in lengths) > _DIRECTION_TOLERANCE:
        raise ValueError(
            f"{series}: Image Orientation {cosines[0].tolist()} (instance {_instance(headers[0])}) is not two "
            "perpendicular unit vectors; the header is broken"
        )
    return row / lengths[0], column / lengths[1]


def _check_repeats(depth: NDArray[np.float64], headers: Sequence[Dataset], series: str) -> None:
    repeats = np.split(depth, np.flatnonzero(np.diff(depth) > _SAME_POSITION) + 1)
    counts = {len(group) for group in repeats}
    if counts == {1}:
        return
    if len(counts) == 1:
        raise ValueError(
            f"{series} is 4D: {counts.pop()} images at each of {counted(len(repeats), 'position')} (time points, "
            "echoes or b-values); expected one. Part it into one folder a volume"
        )
    twice = next(group for group in repeats if len(group) > 1)
    there = [_instance(headers[k]) for k in np.flatnonzero(np.isin(depth, twice))[:4]]
    raise ValueError(
        f"{series} has {len(twice)} images at the position {twice[0]:.2f} mm along the slice normal (instances "
        f"{', '.join(there)}), and one or another number elsewhere; expected one a position. Is a file there twice?"
    )


def _check_spacing(
    depth: NDArray[np.float64], headers: Sequence[Dataset], order: NDArray[np.intp], series: str
) -> None:
    gaps = np.diff(depth)
    usual = float(gaps.min())
    uneven = np.flatnonzero(gaps - usual > max(_SPACING_TOLERANCE * usual, _GAP_TOLERANCE))
    if not uneven.size:
        return
    steps = (gaps / usual).round()
    if np.all(np.abs(gaps - steps * usual) <= np.maximum(_SPACING_TOLERANCE * steps * usual, _GAP_TOLERANCE)):
        where = ", ".join(
            f"between {_instance(headers[order[k]])} and {_instance(headers[order[k + 1]])} ({gaps[k]:.2f} mm)"
            for k in uneven[:4]
        )
        raise ValueError(
            f"{series} lacks {counted(int((steps - 1).sum()), 'slice')}: by instance number {where}, where "
            f"{usual:.2f} mm is usual; expected every slice. Export or copy the series again"
        )
    typical = float(np.median(gaps))
    odd = int(np.argmax(np.abs(gaps - typical)))
    beside = " and ".join(f"instance {_instance(headers[order[k]])}" for k in (odd, odd + 1))
    raise ValueError(
        f"{series} has unevenly spaced slices: {gaps.min():.3f} to {gaps.max():.3f} mm, as between {beside}; expected "
        "one distance (within 1 %). A NIfTI volume cannot hold them; resample the series first"
    )


def _check_straight(
    positions: NDArray[np.float64],
    step: NDArray[np.float64],
    normal: NDArray[np.float64],
    headers: Sequence[Dataset],
    series: str,
) -> None:
    distance = float(np.linalg.norm(step))
    if distance - step @ normal > _DIRECTION_TOLERANCE * distance:
        angle = float(np.degrees(np.arccos(np.clip(step @ normal / distance, -1, 1))))
        raise ValueError(
            f"{series} is sheared: the slices follow each other {angle:.1f} degrees off their normal (gantry "
            f"tilt), from instance {_instance(headers[0])} to {_instance(headers[-1])}; expected none. Resample the "
            "series to a straight grid first"
        )
    straight = positions[0] + np.arange(len(positions))[:, None] * step
    off = np.abs(positions - straight).max(axis=1)
    worst = int(off.argmax())
    astray = float(off[worst])
    if astray > max(0.05 * float(min(headers[0].PixelSpacing)), _GAP_TOLERANCE):
        raise ValueError(
            f"{series}: a slice (instance {_instance(headers[worst])}) lies {astray:.2f} mm from where it would be "
            "between the first and the last; expected a straight and even stack. Was the table moved, or the spacing "
            "changed?"
        )


def _instance(header: Dataset) -> str:
    number = str(header.get("InstanceNumber") or header.get("SOPInstanceUID"))
    file = getattr(header, "filename", None)  # of a header that was read, and not made
    return f"{number}, {Path(file).name!r}" if isinstance(file, (str, Path)) else number


def _odd(headers: Sequence[Dataset], values: Sequence[Hashable]) -> str:
    """Name the slices that are not like most."""
    usual = Counter(values).most_common(1)[0][0]
    odd = [header for header, value in zip(headers, values, strict=True) if value != usual]
    named = "; ".join(f"instance {_instance(header)}" for header in odd[:4])
    return f" ({named}{'; …' if len(odd) > 4 else ''})"
