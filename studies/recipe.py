"""Look for one recipe of training, averaging and correction that meets every bar; write recipe.json and the page.

    python studies/recipe.py DATASET_DIR CACHE RUN...   # measure what is not yet in CACHE, then the tables
    python studies/recipe.py                            # write the tables from recipe.json

Runs that differ in the seed alone are one training; what is kept of others stays. Each is measured alone and averaged
with its other seeds, as it is and with corrections that are fitted on the validation cases. Logits and figures are kept
below CACHE as they are made.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from clinical import bootstrapped, correlation
from pages import cell, rounded, shown, table, write_json, write_page
from recipe_cases import ALONE, AVERAGED, NONE, OWN, SIGNS, averaged, averaged_name, corrections, measure, missing
from run_logits import SPLITS, finished_runs, load_logits, name_of

from monai_calib.handlers.checkpoint import training_settings
from monai_calib.report.statistics import bootstrap_mean

FIGURES = Path(__file__).with_name("recipe.json")
BASE = "dice_ce"
COLUMNS = {
    "dsc": ("DSC", 3),
    "ece_foreground": ("ECE foreground", 3),
    "ece_band": ("ECE 2 mm band", 3),
    "ece_all": ("ECE all", 4),
    "nll_all": ("NLL all", 4),
    "brier_all": ("Brier all", 4),
    "volume_excess": ("expected volume's error − label map's", 3),
    "monai_ace": ("ACE, MONAI's protocol", 3),
}
FLOORS = {"ece_band": "ece_band_floor", "monai_ace": "monai_ace_floor"}
BARS = {"ece_foreground": 0.05, "ece_band": 0.02, "ece_all": 0.004, "volume_excess": 0.0, "monai_ace": 0.06}
"""Largest values. DSC may be half a point below Dice + CE's of the same length; NLL and Brier must be below its."""
Trainings = Mapping[tuple[str, str], Sequence[Path]]
"""Runs by loss and schedule, seeds in order."""


def trainings(runs: Sequence[Path]) -> Trainings:
    found: dict[tuple[str, str], list[tuple[int, Path]]] = {}
    for run in runs:
        settings = training_settings(run / "models")
        arguments = ", ".join(f"{key}={value:g}" for key, value in settings["loss_args"].items())
        schedule = f"{settings['epochs']} epochs" + (", augmented" if settings.get("augmentation") else "")
        key = (f"{settings['loss_name']} {arguments}".strip(), schedule)
        found.setdefault(key, []).append((settings["seed"], run))
    return {key: [run for _, run in sorted(members)] for key, members in found.items()}


def items(found: Trainings) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Every candidate with the names of its measured predictions in ``cache``."""
    for (loss, schedule), runs in found.items():
        names = [name_of(training_settings(run / "models")) for run in runs]
        for networks, members in ((ALONE, names), (AVERAGED, [averaged_name(names[0])])):
            if networks == AVERAGED and len(names) < 2:
                continue
            for correction in corrections(members[0]):
                about = {"loss": loss, "schedule": schedule, "networks": networks, "correction": correction}
                yield {**about, "seeds": len(names)}, [f"recipe/{member}/{correction}.json" for member in members]


def summary(cache: Path, found: Trainings, before: Mapping[str, Any]) -> dict[str, Any]:
    """Means over cases and seeds with intervals over subjects, by the candidate's name.

    Those of ``before`` whose training is not in ``found`` stay.
    """
    read: dict[str, tuple[dict[str, Any], dict[str, np.ndarray], list[str]]] = {}
    for about, files in items(found):
        contents = [json.loads((cache / file).read_text(encoding="utf-8")) for file in files]
        values = {key: np.mean([c["figures"][key] for c in contents], axis=0) for key in contents[0]["figures"]}
        read[candidate(about)] = about, values, contents[0]["subjects"]
    means = {name: row["figures"] for name, row in before.items()}
    means |= {
        name: {key: [*map(float, bootstrap_mean(value, subjects))] for key, value in values.items()}
        for name, (_, values, subjects) in read.items()
    }
    kept = dict(before)
    for name, (about, values, subjects) in read.items():
        figures = means[name]
        base = means[candidate({**about, "loss": BASE, "networks": ALONE, "correction": NONE})]
        met = {key: figures[key][0] <= bar for key, bar in BARS.items()}
        met["dsc"] = figures["dsc"][0] >= base["dsc"][0] - 0.005
        met |= {score: figures[score][0] < base[score][0] for score in ("nll_all", "brier_all")}
        kept[name] = rounded({**about, "figures": figures, "met": met})
        if about["correction"] == OWN:
            temperature = values["log_temperature"]
            told = {
                sign: bootstrapped(correlation, [temperature[None], values[sign][None]], subjects) for sign in SIGNS
            }
            kept[name] |= rounded({"spread": float(temperature.std()), "correlation": told}, 3)
    return kept


def candidate(about: Mapping[str, Any]) -> str:
    """``dice_ce, 40 epochs, averaged, isotonic``"""
    return f"{about['loss']}, {about['schedule']}, {about['networks']}, {about['correction']}"


def tables(kept: Mapping[str, Any]) -> dict[str, str]:
    """A table for each schedule; bold where a bar is met, with the number of bars met."""
    made = {}
    for schedule in dict.fromkeys(row["schedule"] for row in kept.values()):
        rows = []
        for row in kept.values():
            if row["schedule"] != schedule:
                continue
            cells = [f"`{row['loss']}`", row["networks"], row["correction"]]
            for name, (_, decimals) in COLUMNS.items():
                text = cell(row["figures"][name], decimals, row["met"][name])
                if name in FLOORS:
                    text += f" ({row['figures'][FLOORS[name]][0]:.3f})"
                cells.append(text)
            met = "reads the truth" if row["correction"] == OWN else f"{sum(row['met'].values())} of {len(COLUMNS)}"
            rows.append([*cells, met])
        heading = ["loss", "networks", "correction", *(heading for heading, _ in COLUMNS.values()), "met"]
        made[schedule] = table(heading, rows)
    rows = [
        [f"`{row['loss']}`", row["schedule"], shown(row["spread"], 2), *(cell(row["correlation"][s], 2) for s in SIGNS)]
        for row in kept.values()
        if row["correction"] == OWN
    ]
    made["temperatures"] = table(["loss", "schedule", "spread of log T", *SIGNS.values()], rows)
    return made


def main(arguments: Sequence[str]) -> None:
    if arguments:
        dataset_dir, cache = Path(arguments[0]), Path(arguments[1])
        found = trainings(finished_runs(arguments[2:]))
        for runs in found.values():
            names = [name_of(training_settings(run / "models")) for run in runs]
            for name, run in zip(names, runs, strict=True):
                if missing(cache, name):
                    measure(name, {split: load_logits(run, split, dataset_dir, cache) for split in SPLITS}, cache)
            together = averaged_name(names[0])
            if len(runs) > 1 and missing(cache, together):
                splits = {
                    split: averaged([load_logits(run, split, dataset_dir, cache) for run in runs]) for split in SPLITS
                }
                measure(together, splits, cache)
        before = json.loads(FIGURES.read_text(encoding="utf-8"))
        write_json(FIGURES, summary(cache, found, before), depth=1)
    write_page("recipe")


if __name__ == "__main__":
    main(sys.argv[1:])
