"""Probabilities and confidence as DICOM Parametric Map: numbers with a unit, which viewers show as a colour map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from monai_calib.files import atomic_path
from monai_calib.words import counted

from .concepts import CONFIDENCE, PROBABILITY, Algorithm, Structure
from .derived import check_shape, identity, pixel_measures, probabilities_in, sources
from .readback import check_place, source_of
from .series import Series

__all__ = ["CONFIDENCE_MAP", "Quantity", "probability_of", "read_parametric_map", "write_parametric_map"]

_PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
_UNITY = codes.UCUM.NoUnits  # written "1"


@dataclass(frozen=True)
class Quantity:
    """Meaning of a map's numbers: a name of at most 64 characters, its code, and of which structure."""

    name: str
    code: Code
    structure: Structure | None = None


CONFIDENCE_MAP = Quantity(CONFIDENCE.type.meaning, CONFIDENCE.type)
"""The probability of the predicted label, background included."""


def probability_of(structure: Structure) -> Quantity:
    """The quantity "probability of" a structure.

    Example:
        >>> from monai_calib.dicom import name_structures
        >>> probability_of(name_structures({1: "liver"})[1]).name
        'Probability of liver'
    """
    return Quantity(f"Probability of {structure.name}"[:64], PROBABILITY, structure)


def write_parametric_map(
    series: Series, values: NDArray[Any], quantity: Quantity, path: str | Path, algorithm: Algorithm | None = None
) -> Path:
    """Write one map of probabilities as DICOM Parametric Map, a frame a slice, in a series of its own.

    Stored as float32 whose real-world value is the stored one (slope 1, intercept 0, UCUM unit ``1``): a viewer that
    passes over the mapping shows right numbers too. One object holds one quantity, since viewers take the first object
    of a series and the last frame at a place.

    Args:
        series: what was segmented.
        values: ``(columns, rows, slices)`` in [0, 1].
        quantity: :data:`CONFIDENCE_MAP`, or :func:`probability_of` a structure.
        path: file to write. It appears only after pydicom read it back equal to ``values`` in every voxel.
        algorithm: what made the values.

    Raises:
        ValueError: another shape than the series, or a value that is NaN or outside [0, 1].
    """
    check_shape(values.shape, series)
    inside = probabilities_in(values)
    made_by = algorithm or Algorithm()
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="PROBABILITY",
        lut_explanation=quantity.name,
        unit=_UNITY,
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=quantity.code,
    )
    if quantity.structure is not None:
        mapping.QuantityDefinitionSequence.extend(_sites(quantity.structure))
    image = hd.pm.ParametricMap(
        source_images=sources(series),
        pixel_array=np.ascontiguousarray(inside.T),  # (slices, rows, columns)
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.5, window_width=1.0)],
        pixel_measures=pixel_measures(series),
        content_label="PROBABILITY",
        content_description=quantity.name,
        **identity(series, made_by, quantity.name, 3),
    )
    target = Path(path)
    with atomic_path(target) as temporary:
        image.save_as(temporary, enforce_file_format=True)
        read = read_parametric_map(temporary, series)
        if not np.array_equal(read, inside):
            differing = counted(int((read != inside).sum()), "voxel")
            raise ValueError(f"the parametric map read back differs in {differing}; it was not kept")
    return target


def read_parametric_map(path: str | Path, series: Series) -> NDArray[np.float32]:
    """Read the real-world values of a parametric map as ``(columns, rows, slices)`` of the series it was made from.

    With pydicom alone. Every slice of the series needs its frame.

    Raises:
        ValueError: the file is no parametric map of one quantity without unit, or does not lie on the series.
    """
    try:
        image = dcmread(path)
        kind = str(image.SOPClassUID)
        stored = image.pixel_array if kind == _PARAMETRIC_MAP else np.empty(0)
    except Exception as error:
        raise ValueError(f"cannot read {str(path)!r} as DICOM Parametric Map: {error}") from error
    if kind != _PARAMETRIC_MAP:
        raise ValueError(f"{str(path)!r}: expected a DICOM Parametric Map, got the SOP class {kind}")
    check_place(image, series, path)
    slices = [source_of(frame) for frame in image.PerFrameFunctionalGroupsSequence]
    if sorted(slices) != sorted(series.sop_instance_uids):
        raise ValueError(
            f"{str(path)!r}: expected one frame a slice, got {counted(len(slices), 'frame')} of "
            f"{counted(len(set(slices)), 'slice')} for {series.shape[2]}; is it a map of several quantities?"
        )
    slice_of = {uid: k for k, uid in enumerate(series.sop_instance_uids)}
    values = np.empty(series.shape, np.float32)
    for frame, pixels in zip(image.PerFrameFunctionalGroupsSequence, stored, strict=True):
        groups = (frame, image.SharedFunctionalGroupsSequence[0])
        (mapping,) = next(one for one in groups if "RealWorldValueMappingSequence" in one).RealWorldValueMappingSequence
        unit = mapping.MeasurementUnitsCodeSequence[0]
        if (unit.CodeValue, unit.CodingSchemeDesignator) != (_UNITY.value, "UCUM"):
            raise ValueError(f"{str(path)!r}: expected values without unit (UCUM 1), got {unit.CodeMeaning!r}")
        slope, intercept = float(mapping.RealWorldValueSlope), float(mapping.RealWorldValueIntercept)
        values[:, :, slice_of[source_of(frame)]] = (slope * pixels.astype(np.float64) + intercept).T
    return values


def _sites(structure: Structure) -> list[hd.sr.CodeContentItem]:
    """Name the structure beside the quantity, as the standard lets name-value pairs refine it."""
    pairs = [(codes.SCT.FindingSite, structure.type), (codes.SCT.TopographicalModifier, structure.modifier)]
    return [hd.sr.CodeContentItem(name=name, value=value) for name, value in pairs if value is not None]
