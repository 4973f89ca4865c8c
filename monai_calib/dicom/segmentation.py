"""Writing labels, class probabilities and confidence as DICOM SEG that belongs to its source series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes

from monai_calib.files import atomic_path

from ..version import __version__
from .concepts import CONFIDENCE, Algorithm, Structure
from .readback import check_written
from .series import Series

__all__ = ["write_confidence", "write_labels", "write_probabilities"]

MAX_FRACTIONAL_VALUE = 255
# Softmax in float32 or half precision and linear resampling leave the interval by no more than this.
_ROUNDING = 1e-3


def write_labels(
    series: Series,
    labels: NDArray[Any],
    structures: Mapping[int, Structure],
    path: str | Path,
    algorithm: Algorithm | None = None,
    omit_empty_frames: bool = False,
) -> Path:
    """Write a label map as binary SEG, one segment a structure, in the order of the labels.

    Args:
        series: what was segmented.
        labels: ``(columns, rows, slices)`` integers; 0 is the background.
        structures: meaning of every label above 0 that occurs; one that does not occur becomes an empty segment.
        path: file to write. It appears only after its content was read back and found equal to ``labels``.
        algorithm: what made the labels.
        omit_empty_frames: leave out frames without a voxel of their segment: smaller, but not every viewer shows it.

    Raises:
        ValueError: another shape than the series, values that are no integers, or a label without a structure.
    """
    _check_shape(labels.shape, series)
    found = np.unique(labels)
    if not np.all(np.isfinite(found)) or np.any(found != np.round(found)):
        raise ValueError(f"the labels hold {found[found != np.round(found)][:5].tolist()}; expected whole numbers")
    unknown = sorted({int(value) for value in found} - {0} - set(structures))
    if unknown:
        raise ValueError(f"the labels hold {unknown}, which have no structure; known are {sorted(structures)}")
    if not structures:
        raise ValueError("there is no structure to write; expected at least one label above 0")
    masks = np.stack([labels == label for label in sorted(structures)])
    named = [structures[label] for label in sorted(structures)]
    return _write(series, masks, named, path, algorithm, omit_empty_frames, "BINARY", "Segmentation")


def write_probabilities(
    series: Series,
    probabilities: NDArray[Any],
    structures: Sequence[Structure],
    path: str | Path,
    algorithm: Algorithm | None = None,
    omit_empty_frames: bool = False,
) -> Path:
    """Write class probabilities as fractional SEG (``PROBABILITY``), one segment a structure.

    Stored as ``round(255 p)``, so that what is read differs from ``p`` by at most ``1 / 510``.

    Args:
        series: what was segmented.
        probabilities: ``(structures, columns, rows, slices)`` in [0, 1], without the background.
        structures: meaning of each channel.
        path: file to write. It appears only after its content was read back and found equal within ``1 / 510``.
        algorithm: what made the probabilities.
        omit_empty_frames: leave out frames that are 0 everywhere.

    Raises:
        ValueError: another shape, or a value that is NaN or outside [0, 1].
    """
    if probabilities.ndim != 4 or len(probabilities) != len(structures):
        raise ValueError(
            f"the probabilities have the axes {probabilities.shape}; expected ({len(structures)} structures, columns, "
            "rows, slices)"
        )
    _check_shape(probabilities.shape[1:], series)
    low, high = float(probabilities.min()), float(probabilities.max())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # NaN fails every comparison
        raise ValueError(f"the probabilities lie in [{low}, {high}]; expected [0, 1]. Are they logits or percent?")
    inside = np.clip(probabilities.astype(np.float32), 0.0, 1.0)
    return _write(series, inside, structures, path, algorithm, omit_empty_frames, "FRACTIONAL", "Probabilities")


def write_confidence(
    series: Series,
    confidence: NDArray[Any],
    path: str | Path,
    algorithm: Algorithm | None = None,
    omit_empty_frames: bool = False,
) -> Path:
    """Write the probability of the predicted label, background included, as fractional SEG of one segment.

    Args:
        series: what was segmented.
        confidence: ``(columns, rows, slices)`` in [0, 1].
        path: file to write.
        algorithm: what made it.
        omit_empty_frames: leave out frames that are 0 everywhere.

    Raises:
        ValueError: as :func:`write_probabilities`.
    """
    return write_probabilities(series, confidence[None], [CONFIDENCE], path, algorithm, omit_empty_frames)


def _check_shape(shape: tuple[int, ...], series: Series) -> None:
    if shape != series.shape:
        raise ValueError(f"the volume has {shape} voxels, series {series.uid} {series.shape}; expected the same grid")


def _write(
    series: Series,
    channels: NDArray[Any],
    structures: Sequence[Structure],
    path: str | Path,
    algorithm: Algorithm | None,
    omit_empty_frames: bool,
    kind: str,
    title: str,
) -> Path:
    target = Path(path)
    made_by = algorithm or Algorithm()
    sources = [_source(header) for header in series.headers]
    slices = float(np.linalg.norm(series.affine[:3, 2]))
    segmentation = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=channels.T.astype(np.uint8 if kind == "BINARY" else np.float32),  # (slices, rows, columns, segment)
        segmentation_type=kind,
        segment_descriptions=[_describe(k, one, made_by) for k, one in enumerate(structures, start=1)],
        series_instance_uid=hd.UID(),
        series_number=_series_number(sources[0], kind),
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="monai_calib",
        manufacturer_model_name=made_by.name[:64],
        software_versions=__version__,
        device_serial_number="0",  # the standard wants one; software has none
        max_fractional_value=MAX_FRACTIONAL_VALUE,
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=[float(value) for value in sources[0].PixelSpacing],
            slice_thickness=float(sources[0].get("SliceThickness") or slices),
            spacing_between_slices=slices,
        ),
        omit_empty_frames=omit_empty_frames,
        content_label=title.upper(),
        series_description=f"{title} by {made_by.name}"[:64],
    )
    with atomic_path(target) as temporary:
        segmentation.save_as(temporary, enforce_file_format=True)
        check_written(temporary, series, channels, 0.0 if kind == "BINARY" else 0.501 / MAX_FRACTIONAL_VALUE)
    return target


def _source(header: Dataset) -> Dataset:
    """The header with the patient's and study's type 2 attributes: where the source has none, they are empty."""
    source = deepcopy(header)
    for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
        source.setdefault(name, "")
    for name in ("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"):
        source.setdefault(name, "")
    return source


def _series_number(source: Dataset, kind: str) -> int:
    """Beside the source's number in a sorted list: 7 gives 701 for labels, 702 for probabilities."""
    number = min(max(int(source.get("SeriesNumber") or 0), 0), 10**6)
    return 100 * number + (1 if kind == "BINARY" else 2)


def _describe(number: int, structure: Structure, algorithm: Algorithm) -> hd.seg.SegmentDescription:
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=structure.name[:64],
        segmented_property_category=structure.category,
        segmented_property_type=structure.type,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=algorithm.name[:64], family=codes.DCM.ArtificialIntelligence, version=algorithm.version[:64]
        ),
    )
    if structure.modifier is not None:
        modifier = hd.sr.CodedConcept.from_code(structure.modifier)
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]
    return description
