"""The subcommands of ``python -m monai_calib dicom``."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_calib.terminal import bold

from .concepts import Algorithm, Structure, name_structures, read_labels
from .grid import load_on_grid
from .parametric_map import CONFIDENCE_MAP, probability_of, write_parametric_map
from .segmentation import write_confidence, write_labels, write_probabilities
from .series import read_series
from .volume import write_nifti

__all__ = ["segment", "to_nifti", "to_pm", "to_seg"]


def to_nifti(folder: Path, output: Path, series_uid: str | None) -> None:
    """Write a series as NIfTI volume."""
    series = read_series(folder, series_uid)
    path = write_nifti(series, output)
    spacing = " × ".join(f"{step:.4g}" for step in np.linalg.norm(series.affine[:3, :3], axis=0))
    print(f"Wrote {' × '.join(map(str, series.shape))} voxels of {spacing} mm: {bold(path)}")
    if series.gaps:
        print(f"Look at it before use: {series.gaps}")
    print("Next: predict it, with a bundle's inference.json or another tool; then dicom to-seg.")


def to_seg(
    folder: Path,
    segmentation: Path,
    output: Path,
    *,
    labels: Path | None,
    probabilities: Path | None,
    confidence: Path | None,
    series_uid: str | None,
    resample: bool,
    omit_empty_frames: bool,
) -> None:
    """Write a label map, and beside it probabilities and confidence where given, as DICOM SEG."""
    series = read_series(folder, series_uid)
    label_map = load_on_grid(segmentation, series, resample)
    if label_map.ndim != 3:
        raise ValueError(f"{str(segmentation)!r} has {label_map.shape[3]} channels; expected a label map with one")
    if not (label_map > 0).any():
        raise ValueError(
            f"{segmentation}: expected at least one label above 0, got none: there is no structure to write"
        )
    if (label_map != np.rint(label_map)).any():
        raise ValueError(f"{segmentation}: expected class numbers, got values between them. Give the label map.")
    if labels is not None:
        structures, algorithm = read_labels(labels)
    else:
        found = {int(value) for value in np.unique(label_map) if value > 0}
        structures, algorithm = name_structures({label: f"label {label}" for label in found}), Algorithm()
    _tell_uncoded(structures)
    options: dict[str, Any] = {"algorithm": algorithm, "omit_empty_frames": omit_empty_frames}
    written = [write_labels(series, label_map, structures, output, **options)]
    if probabilities is not None:
        channels = load_on_grid(probabilities, series, resample, order=1)
        if channels.ndim != 4 or channels.shape[3] <= max(structures):
            raise ValueError(
                f"{str(probabilities)!r} has the axes {channels.shape}; expected at least {max(structures) + 1} "
                "channels on the last axis, one a label with the background first"
            )
        chosen = np.moveaxis(channels, -1, 0)[sorted(structures)]
        named = [structures[label] for label in sorted(structures)]
        written.append(write_probabilities(series, chosen, named, _beside(output, "probabilities"), **options))
    if confidence is not None:
        values = _fractions(load_on_grid(confidence, series, resample, order=1))
        written.append(write_confidence(series, values, _beside(output, "confidence"), **options))
    _tell_written(written)


def to_pm(
    folder: Path, values: Path, output: Path, *, labels: Path | None, series_uid: str | None, resample: bool
) -> None:
    """Write a confidence map, or every class of a probability map, as DICOM Parametric Map."""
    series = read_series(folder, series_uid)
    maps = _fractions(load_on_grid(values, series, resample, order=1))
    known, algorithm = read_labels(labels) if labels is not None else ({}, Algorithm())
    if maps.ndim == 3:
        _tell_written([write_parametric_map(series, maps, CONFIDENCE_MAP, output, algorithm)])
        return
    structures = known or name_structures({label: f"label {label}" for label in range(1, maps.shape[3])})
    if max(structures) >= maps.shape[3]:
        raise ValueError(
            f"{str(values)!r} has the axes {maps.shape}; expected at least {max(structures) + 1} channels on the last "
            "axis, one a label with the background first"
        )
    _tell_uncoded(structures)
    _tell_written(
        [
            write_parametric_map(
                series, maps[..., label], probability_of(structure), _beside(output, str(label)), algorithm
            )
            for label, structure in structures.items()
        ]
    )


def segment(
    folder: Path,
    bundle: Path,
    output_dir: Path,
    *,
    run_dir: Path | None,
    settings: Sequence[str],
    series_uid: str | None,
    omit_empty_frames: bool,
    parametric_maps: bool = False,
    clinical: bool = False,
) -> None:
    """Predict a series with a bundle and write the outputs as DICOM SEG, and as parametric maps if asked for."""
    from .inference import segment_series

    series = read_series(folder, series_uid)
    chosen: dict[str, Any] = {} if run_dir is None else {"run_dir": str(run_dir)}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"{setting!r} is no setting; expected NAME=VALUE, such as network_name=unet")
        try:
            chosen[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            chosen[name] = value
    _tell_uncoded(read_labels(bundle / "configs" / "metadata.json")[0])
    _tell_written(segment_series(series, bundle, output_dir, chosen, omit_empty_frames, parametric_maps, clinical))


def _fractions(values: NDArray[Any]) -> NDArray[Any]:
    """The bundles' confidence maps are percent in 8 bits; a map of floats is a probability."""
    return values / 100.0 if np.issubdtype(values.dtype, np.integer) else values


def _tell_written(paths: Sequence[Path]) -> None:
    for path in paths:
        print(f"Wrote {bold(path)}")
    print("Next: look at it over its series in a DICOM viewer, before it goes anywhere.")


def _tell_uncoded(structures: Mapping[int, Structure]) -> None:
    names = [repr(structure.name) for structure in structures.values() if not structure.coded]
    if names:
        print(
            f"No code is known for {', '.join(names)}: written as 'Anatomical Structure'. "
            "Give codes in a labels.json (--labels)"
        )


def _beside(output: Path, what: str) -> Path:
    return output.with_name(f"{output.stem}_{what}{output.suffix}")
