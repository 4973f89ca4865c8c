"""Contents of a run's folder: what is done already, and whether it is what the plan asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_calib.files import FileError, read_json

from .plan import Run

__all__ = ["MismatchError", "epochs_done", "missing_steps", "posthoc_folder", "training_record", "validation_folder"]


_EVALUATION_FORMAT = "monai_calib/evaluation/1"
"""That of metrics.evaluated, which a plan need not load PyTorch for."""


class MismatchError(ValueError):
    """A folder that was made with other settings than the plan's."""


def validation_folder(run: Run) -> Path:
    return run.folder / "validation"


def posthoc_folder(run: Run, method: str) -> Path:
    return run.folder / "posthoc" / method


def training_record(run: Run) -> dict[str, Any]:
    """The run's models/training.json, empty before the first epoch."""
    return _read(run.folder / "models" / "training.json")


def epochs_done(run: Run) -> int:
    return int(training_record(run).get("epoch", 0))


def missing_steps(run: Run, trained: bool = False) -> list[str]:
    """List what is left to do: ``train``, ``evaluate``, ``evaluate validation``, ``calibrate M``, ``evaluate M`` ...

    Args:
        trained: the training is known to have ended, though before its last epoch (it stopped early).

    Raises:
        MismatchError: if the folder belongs to other settings; says which.
    """
    record = training_record(run)
    if record:
        _compare(run.folder / "models" / "training.json", record.get("settings", {}), run.recorded)
    missing = []
    if not _evaluated(run, run.folder, {"split": "test"}):
        missing.append("evaluate")
    if run.on_validation and not _evaluated(run, validation_folder(run), {"split": "validation"}):
        missing.append("evaluate validation")
    for method in run.posthoc:
        folder = posthoc_folder(run, method.key)
        if not _read(folder / "models" / "calibration_parameters.json"):  # written after the model and its exports
            missing.append(f"calibrate {method.key}")
        if not _evaluated(run, folder, {"split": "test", "posthoc": method.key}):
            missing.append(f"evaluate {method.key}")
    complete = trained or int(record.get("epoch", 0)) >= run.epochs
    if missing and not (complete and (run.folder / "models" / "model.pt").is_file()):
        missing.insert(0, "train")
    return missing


def _evaluated(run: Run, folder: Path, also: Mapping[str, Any]) -> bool:
    """Whether there is an evaluated folder, which is whole or absent; one of an older version is made anew."""
    path = folder / "eval" / "calibration.json"
    content = _read(path)
    if content.get("format") != _EVALUATION_FORMAT or not content.get("cases"):
        return False
    _compare(path, content.get("run", {}), {**run.recorded, **also})
    return True


def _compare(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    differing = [name for name in expected if name in found and found[name] != expected[name]]
    if differing:
        differences = "; ".join(f"{name} is {found[name]!r}, the plan has {expected[name]!r}" for name in differing)
        raise MismatchError(f"{path} was made with other settings: {differences}. Use another OUT, or move it away.")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except FileError:
        return {}
    return content if isinstance(content, dict) else {}
