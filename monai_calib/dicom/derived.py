"""Shared parts of the objects made from a series: identity, geometry, and probabilities as values."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from ..version import __version__
from .concepts import Algorithm
from .series import Series

__all__ = ["check_shape", "identity", "pixel_measures", "probabilities_in", "sources"]

# Softmax in float32 or half precision and linear resampling leave the interval by no more than this.
_ROUNDING = 1e-3


def check_shape(shape: tuple[int, ...], series: Series) -> None:
    """Refuse a volume that does not have the voxels of the series."""
    if shape != series.shape:
        raise ValueError(f"the volume has {shape} voxels, series {series.uid} {series.shape}; expected the same grid")


def probabilities_in(values: NDArray[Any]) -> NDArray[np.float32]:
    """Probabilities as float32, with what rounding put outside of [0, 1] brought back.

    Raises:
        ValueError: a value is NaN or further outside.
    """
    low, high = float(values.min()), float(values.max())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # NaN fails every comparison
        raise ValueError(f"the probabilities lie in [{low}, {high}]; expected [0, 1]. Are they logits or percent?")
    return np.clip(values.astype(np.float32), 0.0, 1.0)


def sources(series: Series) -> list[Dataset]:
    """The headers with the patient's and study's type 2 attributes: where the source has none, they are empty."""
    found = []
    for header in series.headers:
        source = deepcopy(header)
        for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
            source.setdefault(name, "")
        for name in ("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"):
            source.setdefault(name, "")
        found.append(source)
    return found


def pixel_measures(series: Series) -> hd.PixelMeasuresSequence:
    """Spacing of the voxels, between slices as their positions say."""
    slices = float(np.linalg.norm(series.affine[:3, 2]))
    return hd.PixelMeasuresSequence(
        pixel_spacing=[float(value) for value in series.headers[0].PixelSpacing],
        slice_thickness=float(series.headers[0].get("SliceThickness") or slices),
        spacing_between_slices=slices,
    )


def identity(series: Series, algorithm: Algorithm, title: str, kind: int) -> dict[str, Any]:
    """Name a new object: a series of its own, numbered beside the source's, and what made it.

    Series 7 gives 700 + ``kind``: 701 for labels, 702 for fractions, 703 for parametric maps.
    """
    number = min(max(int(series.headers[0].get("SeriesNumber") or 0), 0), 10**6)
    return {
        "series_instance_uid": hd.UID(),
        "series_number": 100 * number + kind,
        "sop_instance_uid": hd.UID(),
        "instance_number": 1,
        "manufacturer": "monai_calib",
        "manufacturer_model_name": algorithm.name[:64],
        "software_versions": __version__,
        "device_serial_number": "0",  # the standard wants one; software has none
        "series_description": f"{title} by {algorithm.name}"[:64],
    }
