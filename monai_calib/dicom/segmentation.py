"""Writing labels, class probabilities and confidence as DICOM SEG that belongs to its source series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

from monai_calib.files import atomic_path

from .concepts import CONFIDENCE, Algorithm, Structure
from .derived import check_shape, identity, pixel_measures, probabilities_in, sources
from .readback import check_written
from .series import Series

__all__ = ["write_confidence", "write_labels", "write_masks", "write_probabilities"]

MAX_FRACTIONAL_VALUE = 255


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
    check_shape(labels.shape, series)
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


def write_masks(
    series: Series,
    masks: NDArray[np.bool_],
    structures: Sequence[Structure],
    path: str | Path,
    title: str,
    algorithm: Algorithm | None = None,
    omit_empty_frames: bool = False,
) -> Path:
    """Write masks that may overlap, such as structures with their margins, as binary SEG, one segment a mask.

    Args:
        series: what was segmented.
        masks: ``(structures, columns, rows, slices)``.
        structures: meaning of each mask.
        path: file to write. It appears only after its content was read back and found equal.
        title: what the masks are.
        algorithm, omit_empty_frames: as for :func:`write_labels`.

    Raises: ``ValueError`` for another shape.
    """
    if masks.ndim != 4 or len(masks) != len(structures):
        raise ValueError(f"masks: expected ({len(structures)}, columns, rows, slices), got {masks.shape}")
    check_shape(masks.shape[1:], series)
    return _write(series, masks, structures, path, algorithm, omit_empty_frames, "BINARY", title)


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
    check_shape(probabilities.shape[1:], series)
    inside = probabilities_in(probabilities)
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
    segmentation = hd.seg.Segmentation(
        source_images=sources(series),
        pixel_array=channels.T.astype(np.uint8 if kind == "BINARY" else np.float32),  # (slices, rows, columns, segment)
        segmentation_type=kind,
        segment_descriptions=[_describe(k, one, made_by) for k, one in enumerate(structures, start=1)],
        max_fractional_value=MAX_FRACTIONAL_VALUE,
        pixel_measures=pixel_measures(series),
        omit_empty_frames=omit_empty_frames,
        content_label=title.upper(),
        **identity(series, made_by, title, 1 if kind == "BINARY" else 2),
    )
    with atomic_path(target) as temporary:
        segmentation.save_as(temporary, enforce_file_format=True)
        check_written(temporary, series, channels, 0.0 if kind == "BINARY" else 0.501 / MAX_FRACTIONAL_VALUE)
    return target


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
