"""The steps of a run as calls of a bundle: train, evaluate, calibrate, evaluate what was calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_calib.files import read_json

from .folders import posthoc_folder, validation_folder
from .plan import Run
from .specification import Named

__all__ = ["Step", "step_of"]

_CONFIGS = {
    "train": "configs/train.json",
    "evaluate": "['configs/train.json','configs/evaluate.json']",
    "calibrate": "['configs/train.json','configs/calibrate.json']",
}
_CHECKPOINTS = ("checkpoint.ckpt", "last.pt")  # what a training goes on from, in bundles of now and of 0.1.0


@dataclass(frozen=True)
class Step:
    """One call of a bundle.

    Attributes:
        name: as :func:`.folders.missing_steps` calls it.
        arguments: what follows ``python -m monai.bundle``.
    """

    name: str
    arguments: tuple[str, ...]


def step_of(run: Run, name: str) -> Step:
    """The call for one of the run's missing steps, with the folder as it is now."""
    kind, _, what = name.partition(" ")
    if kind == "train":
        return Step(name, _arguments(run, "train", _training(run)))
    if kind == "calibrate":
        return Step(name, _arguments(run, "calibrate", _calibration(run, _method(run, what))))
    folder = {"": run.folder, "validation": validation_folder(run)}.get(what) or posthoc_folder(run, what)
    settings: dict[str, Any] = {
        "run_dir": folder,
        "models_dir": run.folder / "models",
        "output_dir": folder / "eval",
        "split": "validation" if what == "validation" else "test",
    }
    if what not in ("", "validation"):
        settings |= {"evaluated_run#posthoc": what, **_correction(folder), **_calibrated_network(folder)}
    return Step(name, _arguments(run, "evaluate", settings))


def _training(run: Run) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "run_dir": run.folder,
        "loss_name": run.loss.name,
        "loss_args": dict(run.loss.arguments),
        "network_name": run.network,
        "seed": run.seed,
    }
    if any((run.folder / "models" / name).is_file() for name in _CHECKPOINTS):
        settings["resume"] = True
    return settings


def _calibration(run: Run, method: Named) -> dict[str, Any]:
    folder = posthoc_folder(run, method.key)
    known = read_json(run.bundle / "configs" / "calibrate.json")
    arguments = dict(method.arguments)
    region = {"region": arguments.pop("region")} if "region" in arguments else {}
    return {
        "run_dir": folder,
        "exports": [],
        # The test split is evaluated, and nothing else. An expression, since MONAI takes None for no option.
        "calibration#output_dir": "$None",
        "model_path": run.folder / "models" / "model.pt",
        "trained_with": {
            "loss_name": run.loss.name,
            "loss_args": dict(run.loss.arguments),
            "network_name": run.network,
            "seed": run.seed,
        },
        **({"force": True} if "force" in known else {}),
        **({"exports": list(run.exports)} if run.exports and "exports" in known else {}),
        "method": method.name,
        "method_args": arguments,
        **region,
    }


def _correction(folder: Path) -> dict[str, Any]:
    """Record of the correction, for the report; nothing from a record of 0.1.0."""
    record = read_json(folder / "models" / "calibration_parameters.json", advice="Calibrate the run again.")
    return {"evaluated_run#correction": record["correction"]} if "correction" in record else {}


def _calibrated_network(folder: Path) -> dict[str, Any]:
    """A correction that folds is a state dict of the same network; another one comes as a network of its own."""
    whole = folder / "models" / "model_calibrated.ts"
    return {"model_path": whole if whole.is_file() else folder / "models" / "model_calibrated.pt"}


def _method(run: Run, key: str) -> Named:
    return next(method for method in run.posthoc if method.key == key)


def _arguments(run: Run, kind: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    everything = {"dataset_dir": run.dataset_dir, **settings, **run.settings}
    pairs = [("--" + name, value if isinstance(value, str) else str(value)) for name, value in everything.items()]
    return ("run", "--config_file", _CONFIGS[kind], *(text for pair in pairs for text in pair))
