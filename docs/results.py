"""Bring the figures of evaluated runs into results.json and the tables of results.md.

    python docs/results.py RUN...     # read runs, write results.json, then the tables
    python docs/results.py            # write the tables from results.json

Every number of the tables is in results.json, with its 95 % bootstrap interval over subjects.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_calib.metrics import CalibrationHistogram
from monai_calib.report.runs import Run, read_runs
from monai_calib.report.statistics import bootstrap_mean

PAGE = Path(__file__).with_name("results.md")
FIGURES = Path(__file__).with_name("results.json")
COLUMNS = {
    "dsc": ("DSC", 3),
    "hd95_mm": ("HD95 mm", 2),
    "ece_foreground_15bins": ("ECE foreground", 3),
    "ece_predicted_15bins": ("ECE predicted", 3),
    "ece_boundary2mm_15bins": ("ECE 2 mm band", 3),
    "ece_all_15bins": ("ECE all", 4),
    "nll_boundary2mm": ("NLL 2 mm band", 3),
    "brier_boundary2mm": ("Brier 2 mm band", 3),
    "gap_boundary2mm": ("confidence − accuracy, 2 mm band", 3),
    "nll_all": ("NLL all", 4),
}
"""Per-case figure: its heading and decimals. All are means over cases (macro)."""


def signed_gap(histogram: Mapping[str, Any]) -> float:
    """Mean confidence minus accuracy of a case's voxels: above 0 over-confident, below 0 under-confident."""
    bins = CalibrationHistogram.from_json(dict(histogram)).bins()
    return float(bins.share_of_gap().sum())


def figures_of(run: Run) -> dict[str, Any]:
    """What is kept of a run."""
    values = {**run.values, "gap_boundary2mm": [signed_gap(hist) for hist in run.histograms["boundary2mm"]]}
    measured = {name: bootstrap_mean(values[name], run.subjects) for name in COLUMNS}
    kept = ("bundle", "loss_name", "loss_args", "network_name", "seed", "split")
    return {
        **{name: run.settings[name] for name in kept},
        "cases": len(run.cases),
        "subjects": len(set(run.subjects)),
        "missed_classes": list(run.missed_classes()),
        "figures": {name: [round(float(x), 5) for x in interval] for name, interval in measured.items()},
    }


def table(runs: list[dict[str, Any]]) -> str:
    """A Markdown table, a row a run, the best mean of each column in bold."""
    lines = [
        "| loss | " + " | ".join(heading for heading, _ in COLUMNS.values()) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    best = {
        name: min(
            (run["figures"][name][0] for run in runs if not run["missed_classes"]),
            key=lambda value, name=name: -value if name == "dsc" else abs(value),
        )
        for name in COLUMNS
    }
    for run in runs:
        arguments = ", ".join(f"{key}={value:g}" for key, value in run["loss_args"].items())
        label = f"`{run['loss_name']}`" + (f" {arguments}" if arguments else "")
        label += f" (did not learn {', '.join(run['missed_classes'])})" if run["missed_classes"] else ""
        cells = []
        for name, (_, decimals) in COLUMNS.items():
            value, low, high = run["figures"][name]
            shown = f"{value:.{decimals}f}"
            shown = f"**{shown}**" if value == best[name] else shown
            cells.append(f"{shown} <small>{low:.{decimals}f}–{high:.{decimals}f}</small>")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def fill(page: str, runs: list[dict[str, Any]]) -> str:
    """The page with each ``<!-- table: bundle -->`` … ``<!-- end -->`` filled anew."""

    def filled(found: re.Match[str]) -> str:
        rows = [run for run in runs if run["bundle"] == found[1]]
        return f"<!-- table: {found[1]} -->\n\n{table(rows)}\n\n<!-- end -->"

    return re.sub(r"<!-- table: (\S+) -->.*?<!-- end -->", filled, page, flags=re.DOTALL)


def main(folders: list[str]) -> None:
    if folders:
        runs = [figures_of(run) for run in read_runs([Path(folder) for folder in folders])]
        FIGURES.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    runs = json.loads(FIGURES.read_text(encoding="utf-8"))
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), runs), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
