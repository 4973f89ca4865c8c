"""Reading a DICOM SEG back onto the grid of its source series, and checking what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from .series import Series
from .stacking import LPS_TO_RAS

__all__ = ["check_place", "check_written", "read_segmentation", "source_of"]

_POSITION_TOLERANCE = 1e-3
_PLANE_TOLERANCE = 1e-2


def read_segmentation(path: str | Path, series: Series) -> NDArray[Any]:
    """Segments of a DICOM SEG as ``(segments, columns, rows, slices)`` of the series it was made from.

    Binary segments are 0 and 1 (uint8); fractional ones come as float32 in [0, 1]. Frames that the file leaves out are
    0.

    Raises:
        ValueError: the file is no segmentation, belongs to another study or frame of reference, refers to no slice of
            the series, or places its frames elsewhere.
    """
    try:
        segmentation = hd.seg.segread(path)
    except Exception as error:
        raise ValueError(f"cannot read {str(path)!r} as DICOM SEG: {error}") from error
    check_place(segmentation, series, path)
    frames = segmentation.get_pixels_by_source_instance(series.sop_instance_uids, assert_missing_frames_are_empty=True)
    return frames.T


def check_written(path: Path, series: Series, expected: NDArray[Any], tolerance: float) -> None:
    """Compare a SEG just written with what it was to hold, voxel by voxel.

    Raises:
        ValueError: it differs by more than ``tolerance`` somewhere.
    """
    read = read_segmentation(path, series)
    if read.shape != expected.shape:
        raise ValueError(f"the SEG read back has the axes {read.shape}, not {expected.shape}; it was not kept")
    difference = max(
        float(np.abs(one.astype(np.float32) - other.astype(np.float32)).max())
        for one, other in zip(read, expected, strict=True)
    )
    if difference > tolerance:
        raise ValueError(f"the SEG read back differs by {difference} (at most {tolerance} expected); it was not kept")


def source_of(frame: Dataset) -> str:
    """SOP Instance UID of the slice that a frame was made from."""
    return str(frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)


def check_place(image: Dataset, series: Series, path: str | Path) -> None:
    """Refuse an object whose frames are not made from slices of the series, or lie elsewhere than these.

    Raises:
        ValueError: which of its study, frame of reference, slices, orientation, spacing or positions differs.
    """
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if image.get(keyword) != series.headers[0].get(keyword):
            raise ValueError(
                f"{str(path)!r} has another {keyword} than series {series.uid}; they do not belong together"
            )
    if not {source_of(frame) for frame in image.PerFrameFunctionalGroupsSequence} <= set(series.sop_instance_uids):
        raise ValueError(f"{str(path)!r} refers to images that are no slices of series {series.uid}")
    shared = image.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=np.float64)
    row_spacing, column_spacing = (float(value) for value in shared.PixelMeasuresSequence[0].PixelSpacing)
    in_plane = np.stack([cosines[:3] * column_spacing, cosines[3:] * row_spacing], axis=1)
    expected = (LPS_TO_RAS @ series.affine)[:3]
    # at the far corner of a slice, in mm
    if np.abs(in_plane - expected[:, :2]).max() * max(series.shape) > _PLANE_TOLERANCE:
        raise ValueError(f"{str(path)!r} is oriented or spaced otherwise than series {series.uid}")
    slice_of = {uid: k for k, uid in enumerate(series.sop_instance_uids)}
    for frame in image.PerFrameFunctionalGroupsSequence:
        position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, dtype=np.float64)
        declared = np.array(series.headers[slice_of[source_of(frame)]].ImagePositionPatient, dtype=np.float64)
        if np.abs(position - declared).max() > _POSITION_TOLERANCE:
            raise ValueError(
                f"{str(path)!r} places a frame at {position.tolist()}; its slice lies at {declared.tolist()}"
            )
