"""The small file that a comparison leaves: the metrics of every run, and which variants validation chose."""

from __future__ import annotations

import csv
import math
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from monai_calib.files import read_json, write_json
from monai_calib.variants import choose_variant

from .folders import posthoc_folder, training_record, validation_folder
from .manifest import Manifest
from .plan import Plan, Run

__all__ = ["RESULTS_FORMAT", "chosen_runs", "report_folders", "run_folders", "write_results"]

RESULTS_FORMAT = "monai_calib/benchmark_results/1"


def chosen_runs(plan: Plan, done: Sequence[Run]) -> tuple[list[Run], list[dict[str, Any]]]:
    """The finished runs to report, one variant a family, and how each choice was made.

    A variant's value is the mean over seeds of ``plan.choose_by`` on validation; the smallest wins. Only seeds that
    all variants have finished count, so that none is judged by luckier ones. A variant that finished no seed is out.

    Raises:
        ValueError: validation did not measure ``plan.choose_by``; says what it measured.
    """
    finished = {run.key for run in done}
    chosen: list[Run] = []
    choices = []
    for (group, family), members in plan.families().items():
        runs = [run for run in members if run.key in finished]
        losses = sorted({run.loss.key for run in runs})
        if len({run.loss.key for run in members}) == 1 or not runs:
            chosen += runs
            continue
        values: dict[str, dict[Hashable, float]] = {loss: {} for loss in losses}
        for run in runs:
            values[run.loss.key][run.seed] = _on_validation(run, plan.choose_by)
        found = choose_variant(values)
        best = losses[found.best] if found.best >= 0 else None
        chosen += [run for run in runs if run.loss.key == best]
        choices.append(
            {
                "group": group,
                "family": family,
                "by": plan.choose_by,
                "seeds": sorted(found.seeds, key=str),
                "values": {
                    loss: mean if math.isfinite(mean) else None for loss, mean in zip(losses, found.means, strict=True)
                },
                "without_a_finished_run": sorted({run.loss.key for run in members} - set(losses)),
                "chosen": best,
            }
        )
    return chosen, choices


def report_folders(plan: Plan, manifest: Manifest) -> list[Path]:
    """Run folders of what was chosen, as trained and corrected, for ``python -m monai_calib report``."""
    return run_folders(plan, chosen_runs(plan, [run for run in plan.runs if manifest[run].state == "done"])[0])


def run_folders(plan: Plan, runs: Sequence[Run]) -> list[Path]:
    """Evaluated folders of runs, as trained if the plan has that, and corrected."""
    uncorrected = [run.folder for run in runs] if plan.uncorrected else []
    return uncorrected + [posthoc_folder(run, method.key) for run in runs for method in run.posthoc]


def write_results(plan: Plan, manifest: Manifest) -> Path:
    """Writes ``OUT/results.json``: choices, and for every run its settings, training time and mean metrics on test."""
    done = [run for run in plan.runs if manifest[run].state == "done"]
    chosen, choices = chosen_runs(plan, done)
    keys = {run.key for run in chosen}
    rows = []
    for run in done:
        shared = {
            **run.recorded,
            "key": run.key,
            "settings": dict(run.settings),
            "training_seconds": manifest[run].training_seconds,
            "best_epoch": training_record(run).get("best_epoch"),
            "chosen": run.key in keys,
        }
        rows.append({**shared, "posthoc": None, "figures": means(run.folder)})
        for method in run.posthoc:
            rows.append({**shared, "posthoc": method.key, "figures": means(posthoc_folder(run, method.key))})
    path = plan.output / "results.json"
    failed = {run.key: manifest[run].error[:1] for run in plan.runs if manifest[run].state == "failed"}
    write_json(path, {"format": RESULTS_FORMAT, "choices": choices, "failed": failed, "runs": rows})
    return path


def means(folder: Path) -> dict[str, float | None]:
    """Means of an evaluation's metrics: those of metrics.csv (overlap, distances) and of calibration.json's summary."""
    values: dict[str, float | str | None] = {}
    path = folder / "eval" / "metrics.csv"
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            values = {row[0]: row[1] for row in csv.reader(file) if len(row) == 2}
    values |= _calibration(folder)["summary"]
    return {name: _rounded(value) for name, value in values.items()}


def _on_validation(run: Run, metric: str) -> float:
    summary = _calibration(validation_folder(run))["summary"]
    if metric not in summary:
        raise ValueError(f"validation measured no {metric!r} to choose by; it measured {', '.join(summary)}.")
    value = summary[metric]
    return math.nan if value is None else float(value)


def _calibration(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / "eval" / "calibration.json", advice="Evaluate the run again."))


def _rounded(value: float | str | None) -> float | None:
    """Infinity is a word in the files, since JSON has no number for it."""
    number = math.nan if value is None else float(value)
    return float(f"{number:.6g}") if math.isfinite(number) else None
