"""What `make demo` shows, on three phantoms; its settings were fixed before the third was looked at.

    python studies/demo.py SEED=RUN ...        # RUN: a folder that `make demo` wrote, runs/demo_phantom/run
    python studies/demo.py                     # write the page from demo.json

Figures are those of the test cases, against the probability from which each label was drawn; DSC against that label.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pages import cell, rounded, shown, table, write_json, write_page

from monai_calib.files import read_json
from monai_calib.metrics.evaluated import Evaluated, read_evaluated
from monai_calib.report.statistics import bootstrap_mean

FIGURES = Path(__file__).with_suffix(".json")
BAND = "boundary2mm"
SHOWN = {
    "mean_dice": ("DSC", 3),
    f"ece_{BAND}_15bins": ("ECE near boundaries", 3),
    "ece_all_15bins": ("ECE, whole volume", 4),
    f"posterior_distance_{BAND}": ("distance to the truth", 3),
}
"""Metric of a case: its heading and decimals."""


def measure_run(run: Path) -> dict[str, Any]:
    """Means over test cases of each loss as trained and corrected, with intervals over subjects."""
    losses = {}
    for trained in sorted(run.glob("runs/*/*/*/seed_0/eval")):
        corrected = trained.parent / "posthoc" / "auto"
        settings = read_json(trained.parent / "models" / "training.json")["settings"]
        record = read_json(corrected / "models" / "calibration_parameters.json")
        losses[settings["loss_name"]] = {
            "epochs": settings["epochs"],
            "correction": record["correction"]["in_words"],
            "as trained": figures(read_evaluated(trained)),
            "corrected": figures(read_evaluated(corrected / "eval")),
        }
    return losses


def figures(found: Evaluated) -> dict[str, Any]:
    """Means and intervals, and near boundaries mean confidence and the true probability of what it says."""
    subjects = [case.subject for case in found.cases]
    voxels, right, said = found.bins(BAND, 15)[:, -1].sum((0, 2))
    kept: dict[str, Any] = {metric: [*bootstrap_mean(found.values(metric), subjects)] for metric in SHOWN}
    return kept | {"cases": len(subjects), "said": said / voxels, "true": right / voxels}


def tables(kept: Mapping[str, Any]) -> dict[str, str]:
    """A row a phantom, loss and state."""
    rows = []
    for seed, losses in kept.items():
        for loss, of in losses.items():
            for state in ("as trained", "corrected"):
                found = of[state]
                told = [f"phantom {seed}, `{loss}`" if state == "as trained" else "", state]
                sure = f"{shown(found['said'], 3)} / {shown(found['true'], 3)}"
                rows.append([*told, *(cell(found[key], digits) for key, (_, digits) in SHOWN.items()), sure])
    heads = ["", "", *(heading for heading, _ in SHOWN.values()), "says / true, near boundaries"]
    return {"runs": table(heads, rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description="What make demo shows, on several phantoms.")
    parser.add_argument("runs", nargs="*", metavar="SEED=RUN")
    arguments = parser.parse_args()
    if arguments.runs:
        kept = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else {}
        given = (text.split("=", 1) for text in arguments.runs)
        kept |= rounded({seed: measure_run(Path(run)) for seed, run in given})
        write_json(FIGURES, kept, depth=2)
    write_page("demo")


if __name__ == "__main__":
    main()
