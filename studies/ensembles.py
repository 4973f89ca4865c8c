"""Bring the figures of averaged predictions into ensembles.json and their page.

    python studies/ensembles.py "LOSS: WAY=RUN,RUN" ...   # evaluated folders (with eval/), one argument a row
    python studies/ensembles.py                           # write the table from ensembles.json

The row of each loss whose way is "one network" is what the others are compared with, by its runs of the same seeds.
Figures are means over runs and cases, with 95 % bootstrap intervals over subjects, all runs of a drawn subject
together.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from pages import figure_at, rounded, table, write_json, write_page

from monai_calib.report.runs import Run, read_run
from monai_calib.report.statistics import bootstrap_mean

NAMES = {"dsc": "mean_dice"}
"""Names of metrics where the page's differ."""

FIGURES = Path(__file__).with_name("ensembles.json")
PLAIN = "one network"
COLUMNS = {
    "dsc": ("DSC", 3),
    "ece_foreground_15bins": ("ECE foreground", 3),
    "ece_boundary2mm_15bins": ("ECE 2 mm band", 3),
    "ece_all_15bins": ("ECE all", 4),
    "nll_boundary2mm": ("NLL 2 mm band", 3),
    "nll_all": ("NLL all", 4),
    "brier_all": ("Brier all", 4),
}
"""Figure of a case: its heading and decimals."""


def row(name: str, runs: list[Run], plain: list[Run]) -> dict[str, Any]:
    """What is kept of a row: its figures, and how they differ from those of one network, subject by subject."""
    loss, _, way = name.partition(": ")
    seeds = {seed for run in runs for seed in run.seed.split("+")}
    plain = [run for run in plain if run.seed in seeds]
    assert len(plain) == len(seeds), f"{name}: one network is not evaluated for each of the seeds {sorted(seeds)}"
    subjects = runs[0].subjects
    assert all(run.cases == runs[0].cases for run in [*runs, *plain]), f"{name}: evaluated on different cases"
    figures, change = {}, {}
    for key in COLUMNS:
        values, before = (np.mean([run.values[NAMES.get(key, key)] for run in some], axis=0) for some in (runs, plain))
        figures[key] = rounded(bootstrap_mean(values, subjects))
        change[key] = rounded(bootstrap_mean(values - before, subjects))
    kept = {"loss": loss, "way": way, "seeds": sorted(seeds), "cases": len(subjects), "subjects": len(set(subjects))}
    return {**kept, "figures": figures, "change": change}


def tables(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The page's table; bold where the interval of the change against one network excludes 0."""
    lines = []
    for kept in rows:
        cells = []
        for key, (_, decimals) in COLUMNS.items():
            value, low, high = (f"{x:.{decimals}f}" for x in kept["figures"][key])
            _, lower, upper = kept["change"][key]
            shown = f"**{value}**" if lower > 0 or upper < 0 else value
            cells.append(f"{shown} <small>{low}–{high}</small>")
        lines.append([kept["loss"], kept["way"], ", ".join(kept["seeds"]), *cells])
    heading = ["loss", "prediction", "seeds", *(heading for heading, _ in COLUMNS.values())]
    return {"ensembles": table(heading, lines)}


def figure(rows: list[dict[str, Any]], path: str) -> float:
    """A figure by loss and prediction: ``dice_ce: one network | figures | nll_all``."""
    whose, _, rest = path.partition(" | ")
    return figure_at({f"{row['loss'].replace('`', '')}: {row['way']}": row for row in rows}[whose], rest)


def main(arguments: list[str]) -> None:
    if arguments:
        folders = dict(argument.rsplit("=", 1) for argument in arguments)
        runs = {name: [read_run(Path(folder)) for folder in text.split(",")] for name, text in folders.items()}
        rows = [row(name, some, runs[f"{name.partition(': ')[0]}: {PLAIN}"]) for name, some in runs.items()]
        write_json(FIGURES, rows, depth=1)
    write_page("ensembles")


if __name__ == "__main__":
    main(sys.argv[1:])
