"""The files that a calibration leaves in a run's models folder, and what they say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_calib.datasets.checksums import sha256
from monai_calib.files import FileError, read_json

__all__ = [
    "CALIBRATOR_FORMAT",
    "FOLDED",
    "PARAMETERS",
    "WITH_HEAD",
    "calibrated_model",
    "correction_record",
    "posthoc_settings",
]

CALIBRATOR_FORMAT = "monai_calib/calibrator/1"
FOLDED = "model_calibrated.pt"
"""State dict of the network with the correction in its last convolution."""
WITH_HEAD = "model_calibrated.ts"
"""TorchScript of the network and its head, for what does not fold."""
PROGRAM, ONNX, TORCHSCRIPT = "model_calibrated.pt2", "model_calibrated.onnx", "model_calibrated_folded.ts"
"""Further forms of it: of ``torch.export``, ONNX (both free in the batch axis, fixed in the window), TorchScript."""
PARAMETERS = "calibration_parameters.json"
"""The fitted method."""
_ADVICE = "Calibrate the run again, with configs/calibrate.json laid over configs/train.json."


def calibrated_model(directory: str | os.PathLike[str]) -> str:
    """Path of the calibrated model in a models folder, folded or with its head, as its record names it.

    Raises: ``FileNotFoundError`` if the run was not calibrated; :class:`~monai_calib.files.FileError` if model and
        record do not belong together, as after a calibration that was killed.
    """
    record = Path(directory, PARAMETERS)
    if not record.is_file():
        raise FileNotFoundError(
            f"there is no {PARAMETERS} with its {FOLDED} or {WITH_HEAD} in {os.fspath(directory)!r}: calibrate the run "
            "first, with configs/calibrate.json laid over configs/train.json"
        )
    return os.fspath(_read(directory)[1])


def posthoc_settings(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The method and region of the calibrated model in a models folder, as an evaluation records them.

    ``correction`` says how it came about: see :func:`correction_record`.

    Raises: as :func:`calibrated_model`.
    """
    fitted, _ = _read(directory)
    try:
        record = {"posthoc": str(fitted["method"]), "posthoc_region": str(fitted["fit"]["region"])}
    except Exception as error:  # whatever is in the file
        raise FileError(
            f"{Path(directory, PARAMETERS)}: expected method and region of a fit ({type(error).__name__}: {error}). "
            f"{_ADVICE}"
        ) from error
    return record | ({"correction": fitted["correction"]} if "correction" in fitted else {})


def correction_record(fitted: Mapping[str, Any], in_words: str, fitted_on: str) -> dict[str, Any]:
    """Record of a correction for evaluations and the report, from :meth:`~.base.Calibrator.to_json` and its record.

    Args:
        fitted: the correction's plain values, and what was asked for, guards and choice.
        in_words: its numbers.
        fitted_on: the split it was fitted on.
    """
    told = {name: fitted[name] for name in ("asked", "guards", "held_out", "choice", "intervals") if name in fitted}
    fit = fitted["fit"]
    how = {name: fit[name] for name in ("status", "message", "region", "cases", "voxels", "passes")}
    return {"method": fitted["method"], "in_words": in_words, "fitted_on": fitted_on, **how, **told}


def _read(directory: str | os.PathLike[str]) -> tuple[dict[str, Any], Path]:
    """The record and its model, which must be the one that the record was written for."""
    path = Path(directory, PARAMETERS)
    record = read_json(path, CALIBRATOR_FORMAT, _ADVICE)
    try:
        model, expected = path.with_name(record["model"]), record["model_sha256"]
        found = sha256(model) if model.is_file() else "no such file"
    except Exception as error:  # whatever is in the file
        raise FileError(f"{path}: expected the model's name and its checksum, got neither. {_ADVICE}") from error
    if found != expected:
        raise FileError(f"{path}: expected {model.name} with SHA-256 {expected}, got {found}. {_ADVICE}")
    return record, model
