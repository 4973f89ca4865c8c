"""Whether one training can be calibrated without a correction: losses that know when to stop, on several data sets.

    python studies/one_training.py "NAME=OUT/runs" "NAME=OUT/runs=LOSS" ...   # read comparisons, then write the page
    python studies/one_training.py                                            # write the page from one_training.json

Runs are kept, and added to, as :mod:`parts` says; ``=LOSS`` names runs of a loss of one_training_losses.py.
Beside them stand the same seed's means of trainings that were alike, from the pages in :data:`ALIKE`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pages import shown, table, write_page
from parts import COLUMNS, cases_of, draw, read_parts
from results import COLUMNS as HEADINGS
from results import by_how_much, change_table, figure_table, figures_of, merged, name_of

FIGURES = Path(__file__).with_suffix(".json")
PICTURE = FIGURES.with_name("figures") / "one_training.svg"
ALIKE = {
    "hippocampus, 10 epochs": ("other_data", "hippocampus, 3D, 10 epochs"),
    "hippocampus, 40 epochs, augmented": ("results", "3D, 40 epochs, augmented, float32"),
    "heart, 2D, 30 epochs": ("acdc", "heart, 2D, 30 epochs", "heart, 2D, 30 epochs, first training"),
    "heart, 3D, 54 epochs": ("acdc", "heart, 3D, 54 epochs"),
    "ultrasound, 2D, 20 epochs": ("other_data", "ultrasound, 2D, 20 epochs"),
    "cells, 2D, 16 epochs": ("other_data", "cells, 2D, 16 epochs"),
}
"""The page and its parts that keep other losses, of trainings with the same seeds, split and schedule."""
YARDSTICKS = ("ce", "dice_ce", "dice_ce_surgery", "recommended")
SEEDS = range(3)
FADES = {"hippocampus, 10 epochs": 1.0, "ultrasound, 2D, 20 epochs": 1.0, "cells, 2D, 16 epochs": 1.0}
"""Share of the training over which the default's Dice fades where that is more than half: at least 1,000 steps."""
STATES = {"as trained": "", "auto": " → auto"}

Method = Mapping[str, Any]


def of_seed(part: Mapping[str, Any], seed: int) -> dict[str, Method]:
    """The methods of a part and of what was alike, by name, with the means of one seed for figures; those of the part
    where both have it."""
    page, *alike = ALIKE[part["part"]]
    kept = json.loads(FIGURES.with_name(f"{page}.json").read_text(encoding="utf-8"))
    others = [method for each in kept if each["part"] in alike for method in each["methods"]]
    found = {}
    for method in (*(other for other in others if other["loss_name"] in YARDSTICKS), *part["methods"]):
        if seed in method["seeds"]:
            place = method["seeds"].index(seed)
            figures = {column: [values[place]] for column, values in method["by_seed"].items()}
            found[name_of(method)] = {**method, "seeds": [seed], "figures": figures}
    return dict(sorted(found.items(), key=lambda each: (each[1]["loss_name"], each[1]["posthoc"], each[0])))


def first_seed(parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The parts with the means of the first seed."""
    return [{**part, "methods": list(of_seed(part, SEEDS[0]).values())} for part in parts]


def pairs(part: Mapping[str, Any], first: str, second: str, column: str) -> dict[int, tuple[float, float]]:
    """Means of two methods, by the seeds that both have."""
    each = {seed: of_seed(part, seed) for seed in SEEDS}
    return {
        seed: (found[first]["figures"][column][0], found[second]["figures"][column][0])
        for seed, found in each.items()
        if first in found and second in found
    }


def figure(parts: Sequence[Mapping[str, Any]], path: str) -> float:
    """``part | method | name``, of the first seed; ``below | part | method | other | name``, or another word of
    :func:`by_how_much`, over the seeds that both have."""
    title, *rest = path.split(" | ")
    if title not in ("below", "above", "less", "more"):
        method, column = rest
        return float(of_seed(_part(parts, title), SEEDS[0])[method]["figures"][column][0])
    name, first, second, column = rest
    found = pairs(_part(parts, name), first, second, column)
    own, other = (statistics.fmean(means) for means in zip(*found.values(), strict=True))
    return by_how_much(path, title, own, other)


def _part(parts: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return next(part for part in parts if part["part"] == name)


def default_of(data: str) -> str:
    """The row of the bundles' default loss in the table of some data."""
    return f"`dice_ce_fading` dice_fades={FADES.get(data, 0.5):g}"


def kept_cases(data: str) -> dict[str, Any]:
    """Every kept run of Dice + CE and of the default on some data, from this page and from that of what was alike."""
    page, *alike = ALIKE[data]
    paths = [cases_of("one_training", data), *(cases_of(page, name) for name in alike)]
    found: dict[str, Any] | None = None
    for path in paths:
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            names = default_of(data), "`dice_ce`"
            runs = [run for run in kept["runs"] if name_of({**run, "posthoc": ""}) in names]
            found = merged(found, {**kept, "runs": runs})
    return found or {"cases": [], "subjects": [], "runs": []}


def default_table(parts: Sequence[Mapping[str, Any]], state: str) -> str:
    """A row a data set: what the default changes of Dice + CE, over the seeds of which both have every case."""
    against, changes = f"`dice_ce`{STATES[state]}", []
    for part in parts:
        found = figures_of(kept_cases(part["part"]), corrected=True)["changes"]
        own = default_of(part["part"]) + STATES[state]
        changes += [
            {**change, "method": part["part"]}
            for change in found
            if (change["method"], change["against"]) == (own, against)
        ]
    return change_table({"changes": changes}, against, COLUMNS[:5]).replace("| loss |", "| data |", 1)


def seed_table(parts: Sequence[Mapping[str, Any]]) -> str:
    """A row a data set, correction and seed that the default and Dice + CE both have: figures of both."""
    rows = []
    for part in parts:
        for told, correction in STATES.items():
            methods = f"{default_of(part['part'])}{correction}", f"`dice_ce`{correction}"
            columns = {name: pairs(part, *methods, name) for name in COLUMNS[:5]}
            for seed in columns["dsc"]:
                cells = [
                    ", ".join(shown(value, HEADINGS[name].decimals) for value in found[seed])
                    for name, found in columns.items()
                ]
                rows.append([part["part"], told, str(seed), *cells])
    return table(["data", "", "seed", *(HEADINGS[name].heading for name in COLUMNS[:5])], rows)


def tables(parts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """All tables of the page by name."""
    made = {"seeds": seed_table(parts)} | {f"default, {state}": default_table(parts, state) for state in STATES}
    for part in first_seed(parts):
        made[part["part"]] = figure_table(part, COLUMNS).replace("2 mm", f"2 {part['unit']}")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether one training can be calibrated without a correction.")
    parser.add_argument("comparisons", nargs="*", metavar="NAME=OUT/runs[=LOSS]")
    draw(first_seed(read_parts(FIGURES, parser.parse_args().comparisons)), PICTURE)
    write_page("one_training")


if __name__ == "__main__":
    main()
