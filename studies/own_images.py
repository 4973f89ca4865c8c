"""What `prepare` and `run` reach on images that are not ours, planned bundles beside those that come with the package.

    python studies/own_images.py "NAME=RUN" ...        # RUN: a folder that `python -m monai_calib run` wrote
    python studies/own_images.py                       # write the page from own_images.json

Figures are those of the test split. Of the bundles that come with the package they are in auto_correction.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pages import cell, figure_at, rounded, table, write_json, write_page

from monai_calib.files import read_json
from monai_calib.metrics.evaluated import read_evaluated
from monai_calib.report.statistics import bootstrap_mean

FIGURES = Path(__file__).with_suffix(".json")
SHIPPED = Path(__file__).with_name("auto_correction.json")
SHOWN = {
    "mean_dice": ("DSC", 3),
    "ece_all_15bins": ("ECE, whole volume", 4),
    "nll_all": ("NLL", 3),
    "expected_volume_error": ("error of the expected volume", 3),
}
"""Metric of a case: its heading and decimals."""


def measure_run(run: Path) -> dict[str, Any]:
    """Means over test cases as trained and calibrated, with intervals over subjects."""
    (trained,) = run.glob("runs/*/*/*/*/eval")
    calibrated = trained.parent / "posthoc" / "auto" / "eval"
    settings = read_json(trained.parent / "models" / "training.json")["settings"]
    kept: dict[str, Any] = {"trained": {name: settings[name] for name in ("bundle", "loss_name", "epochs", "seed")}}
    for name, folder in (("as trained", trained), ("calibrated", calibrated)):
        found = read_evaluated(folder)
        subjects = [case.subject for case in found.cases]
        kept |= {"cases": len(subjects), "subjects": len(set(subjects))}
        kept[name] = {metric: [*bootstrap_mean(found.values(metric), subjects)] for metric in SHOWN}
    record = read_json(trained.parent / "posthoc" / "auto" / "models" / "calibration_parameters.json")
    kept["correction"] = record["correction"]["in_words"]
    kept["held against"] = {name: said for name, said in record["choice"]["guards"].items() if said}
    return kept


def tables(kept: Mapping[str, Any]) -> dict[str, str]:
    """A row a run and state; ``auto`` chose nothing where there is one row."""
    rows = []
    for name, run in kept.items():
        same = run["as trained"] == run["calibrated"]
        for state in ("as trained",) if same else ("as trained", "calibrated"):
            told = "as trained; auto chose no correction" if same else state
            first = [name, f"{run['trained']['epochs']}"] if state == "as trained" else ["", ""]
            rows.append([*first, told, *(cell(run[state][key], digits) for key, (_, digits) in SHOWN.items())])
    return {"runs": table(["data", "epochs", "", *(heading for heading, _ in SHOWN.values())], rows)}


def figure(kept: Mapping[str, Any], path: str) -> float:
    """A figure of a run; ``shipped | NAME`` is the mean DSC of a network of auto_correction.json, as trained."""
    kind, _, name = path.partition(" | ")
    if kind != "shipped":
        return figure_at(kept, path)
    values = json.loads(SHIPPED.read_text(encoding="utf-8"))[name]["figures"]["none"]["dsc"]
    return float(sum(values) / len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description="What prepare and run reach on images that are not ours.")
    parser.add_argument("runs", nargs="*", metavar="NAME=RUN")
    arguments = parser.parse_args()
    if arguments.runs:
        given = (text.split("=", 1) for text in arguments.runs)
        write_json(FIGURES, rounded({name: measure_run(Path(run)) for name, run in given}), depth=1)
    write_page("own_images")


if __name__ == "__main__":
    main()
