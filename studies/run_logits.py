"""Logits of a trained run on its validation and test cases, computed once and kept, for the pages on calibration."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from pages import write_json, write_page
from trained_run import BUNDLES, TrainedRun

from monai_calib.files import atomic_path
from monai_calib.handlers.checkpoint import training_settings
from monai_calib.posthoc import LogitCase

Change = Callable[[dict[str, Any]], dict[str, Any]]
SPLITS = ("validation", "test")


@dataclass
class RunLogits:
    """One split of one run: its cases in the order of the datalist, and the subject of each."""

    settings: dict[str, Any]
    class_names: list[str]
    cases: list[LogitCase]
    subjects: list[str]

    @property
    def loss(self) -> str:
        """The loss as the tables write it: ``mbls margin=5``."""
        arguments = ", ".join(f"{key}={value:g}" for key, value in self.settings["loss_args"].items())
        return f"{self.settings['loss_name']} {arguments}".strip()


def finished_runs(folders: Sequence[str]) -> list[Path]:
    """The runs whose training and evaluation have ended; the others are named and left out."""
    finished = []
    for folder in map(Path, folders):
        if (folder / "eval" / "calibration.json").is_file():
            finished.append(folder)
        else:
            print(f"{folder}: not finished, left out")
    return finished


def load_logits(
    run: Path,
    split: str,
    dataset_dir: Path,
    cache: Path,
    overrides: Mapping[str, Any] | None = None,
    change: Change | None = None,
) -> RunLogits:
    """Read the logits of a split from ``cache``, or run the network over it and write them there (float32).

    ``overrides`` are what the training was given beside its record, such as ``{"networks#unet#features": [...]}``;
    ``change`` does something to each preprocessed case before the network sees it.
    """
    settings = training_settings(run / "models")
    config = ConfigParser.load_config_files(BUNDLES / settings["bundle"] / "configs" / "train.json")
    suffix = "" if change is None else f"_{change.__name__}"
    kept = cache / "logits" / f"{name_of(settings)}_{split}{suffix}.pt"
    if not kept.is_file():
        computed = _computed(TrainedRun(run, dataset_dir, overrides=overrides), split, change)
        with atomic_path(kept) as partial:
            torch.save(computed, partial)
    entries = json.loads((dataset_dir / "datalist.json").read_text(encoding="utf-8"))[split]
    cases = [LogitCase(**case) for case in torch.load(kept, weights_only=True)]
    subject_of = {entry["case"]: str(entry["subject"]) for entry in entries}
    return RunLogits(settings, config["class_names"], cases, [subject_of[case.name] for case in cases])


def name_of(settings: dict[str, Any]) -> str:
    """What a run's files in the cache are called."""
    arguments = "".join(f"_{key}={value:g}" for key, value in settings["loss_args"].items())
    training = f"{settings['bundle']}_{settings['network_name']}_{settings['loss_name']}{arguments}"
    augmented = "_augmented" if settings.get("augmentation") else ""
    return f"{training}_{settings['epochs']}epochs{augmented}_seed{settings['seed']}"


def _computed(trained: TrainedRun, split: str, change: Change | None) -> list[dict[str, Any]]:
    return [
        {
            "name": case.name,
            "logits": case.logits.cpu(),
            "label": case.label.to(torch.uint8).cpu(),
            "image": None if case.image is None else case.image.cpu(),
            "spacing": case.spacing,
        }
        for case in trained.logits(split, change)
    ]


def update_page(
    arguments: Sequence[str],
    figures: Path,
    measure: Callable[[Path, Path, Path], None],
    summary: Callable[[Path, list[str]], dict[str, Any]],
) -> None:
    """Given ``DATASET_DIR CACHE RUN...``, measure what the cache does not hold and keep its summary; fill the page."""
    if arguments:
        dataset_dir, cache = Path(arguments[0]), Path(arguments[1])
        runs = finished_runs(arguments[2:])
        for run in runs:
            measure(run, dataset_dir, cache)
        write_json(figures, summary(cache, [name_of(training_settings(run / "models")) for run in runs]), depth=2)
    write_page(figures.stem)
