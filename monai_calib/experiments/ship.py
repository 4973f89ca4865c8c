"""Write the file to ship: the calibrated network of the best seed, with the bundle's configurations inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monai_calib.files import FileError, read_json, write_json
from monai_calib.posthoc.export import copy_torchscript
from monai_calib.report.shipping import shipped_run

from .folders import posthoc_folder
from .plan import Plan, Run
from .results import chosen_runs, means, run_folders

__all__ = ["SHIPPED_FORMAT", "Shipped", "ship"]

SHIPPED_FORMAT = "monai_calib/shipped/1"
_FORMS = ("model_calibrated.ts", "model_calibrated_folded.ts")
_METRICS = ("mean_dice", "ece_all_15bins_macro", "nll_all_macro", "expected_volume_error_macro")


class Shipped(NamedTuple):
    """The file to ship, the run it is of, and what is said of it."""

    file: Path
    run: Run
    record: dict[str, Any]


def ship(plan: Plan, done: Sequence[Run], method: str) -> Shipped:
    """Write ``OUT/model.ts``, the calibrated network as TorchScript, and ``OUT/model.json``, which says what it is.

    Training and seed are those that the page ships: the best on validation cases that no fit has seen, each with its
    correction (:func:`~monai_calib.report.shipping.shipped_of`). Where none has converged, it is the first. The file
    holds the bundle's ``metadata.json`` and ``inference.json`` with the run's
    network, patch and dropout, and runs without this package.

    Args:
        plan: the plan.
        done: its runs that have finished.
        method: the correction to ship.

    Raises: ``ValueError`` for no run; :class:`~monai_calib.files.FileError` where a run has no TorchScript.
    """
    runs = chosen_runs(plan, done)[0]
    if not runs:
        raise ValueError("no run to ship: none has finished.")
    chosen = shipped_run(run_folders(plan, runs))
    run = next((r for r in runs if chosen and chosen.evaluation.is_relative_to(r.folder)), runs[0])
    models = posthoc_folder(run, method) / "models"
    found = [models / name for name in _FORMS if (models / name).is_file()]
    if not found:
        raise FileError(
            f"{models}: expected {' or '.join(_FORMS)}, got none: this network does not compile as TorchScript. Ship "
            f"{models / 'model_calibrated.pt2'} or the state dict beside it."
        )
    fitted = read_json(models / "calibration_parameters.json", advice="Calibrate the run again.")
    file = plan.output / "model.ts"
    metrics = {"as_trained": means(run.folder), "calibrated": means(posthoc_folder(run, method))}
    record = {
        "format": SHIPPED_FORMAT,
        "run": run.key,
        "from": str(found[0].relative_to(plan.output)),
        "sha256_of_calibrated": fitted["model_sha256"],
        "correction": fitted["correction"]["in_words"],
        "why": fitted.get("choice", {}).get("why", "asked for"),
        "test": {
            name: {metric: values[metric] for metric in _METRICS if metric in values}
            for name, values in metrics.items()
        },
    }
    about = plan.output / "model.json"
    if not (file.is_file() and about.is_file() and read_json(about) == record):
        copy_torchscript(found[0], file)
        write_json(about, record)
    return Shipped(file, run, record)
