"""Bring the figures of an nnU-Net's round trip into nnunet.json and its page.

    python studies/nnunet.py WORK     # the folder of nnunet_round_trip.py
    python studies/nnunet.py          # write the page from nnunet.json

Figures are means over test cases with 95 % bootstrap intervals over subjects; a change is paired, case by case.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nnunet_round_trip import HANDED_BACK, METHODS
from pages import cell, rounded, write_json, write_page
from pages import table as as_table

from monai_calib.datasets.case import case_of_file
from monai_calib.metrics.evaluated import Evaluated, read_evaluated
from monai_calib.report.statistics import bootstrap_mean

FIGURES = Path(__file__).with_name("nnunet.json")
COLUMNS = {
    "mean_dice": ("DSC", 3),
    "ece_foreground_15bins": ("ECE foreground", 3),
    "ece_boundary2mm_15bins": ("ECE 2 mm band", 3),
    "ece_all_15bins": ("ECE all", 4),
    "nll_all": ("NLL all", 4),
    "brier_all": ("Brier all", 4),
    "expected_volume_error": ("volume error", 3),
}
"""Metric of a case: its heading and decimals."""
PLAIN, CHOSEN = "as nnU-Net wrote them", "`auto`"
ROWS = {
    PLAIN: ("corrected_auto", "as_measured"),
    **{f"`{method}`": (f"corrected_{method}", "corrected") for method in METHODS},
}
"""Row of the table: the folder that ``correct`` wrote, and the evaluation in it."""


def gather(work: Path) -> dict[str, Any]:
    """Everything the page says, from the folder of one round trip."""
    found = {row: read_evaluated(work / folder / name / "eval") for row, (folder, name) in ROWS.items()}
    subjects = [case.subject for case in found[PLAIN].cases]
    assert all([case.subject for case in one.cases] == subjects for one in found.values()), "different cases"
    assert len(subjects) == len(list((work / "nnUNet_raw").glob("*/imagesTs/*"))), "not all test cases were corrected"
    fit = read_evaluated(work / "validation" / "eval")
    fitted_on = {case.subject for case in fit.cases}
    assert not fitted_on & set(subjects), "subjects of the fit are tested"
    figures, change = {}, {}
    for row, one in found.items():
        figures[row] = {name: bootstrap_mean(one.values(name), subjects) for name in COLUMNS}
        differences = {name: one.values(name) - found[PLAIN].values(name) for name in COLUMNS}
        change[row] = {name: bootstrap_mean(values, subjects) for name, values in differences.items()}
    records = {row: json.loads((work / folder / "correction.json").read_text()) for row, (folder, _) in ROWS.items()}
    kept = {
        "subjects": {"fitted on": len(fitted_on), "tested on": len(set(subjects))},
        "cases": {"fitted on": len(fit.cases), "tested on": len(subjects)},
        "nnunet": training(work),
        "figures": figures,
        "change": change,
        "corrections": {row: told(records[row], found[row]) for row in ROWS if row != PLAIN},
        "handed back": handed_back(work),
        "dice against nnU-Net's own": against_its_own(work, fit),
    }
    return dict(rounded(kept))


def told(record: Mapping[str, Any], found: Evaluated) -> dict[str, Any]:
    """What is kept of a correction: its name, its numbers in words, how it was chosen."""
    return {
        "method": record["correction"]["method"],
        "in words": found.run.get("correction", {}).get("in_words", ""),
        "held out": record["choice"]["candidates"] if "choice" in record else record["held_out"],
        "warnings": record["guards"],
        "labels changed": record["labels_changed"],
    }


def training(work: Path) -> dict[str, Any]:
    """Settings and course of nnU-Net's training, as its files say."""
    (model,) = (work / "nnUNet_results").glob("*/*")
    trainer, plans_name, configuration = model.name.split("__")
    configurations = json.loads((model / "plans.json").read_text())["configurations"]
    plans = configurations[configuration]
    plans = {**configurations.get(plans.get("inherits_from"), {}), **plans}
    log = "\n".join(path.read_text() for path in sorted(model.glob("fold_*/training_log_*.txt")))
    split = re.findall(r"This split has (\d+) training and (\d+) validation cases", log)[-1]
    return {
        **json.loads((work / "versions.json").read_text()),
        "trainer": trainer,
        "plans": plans_name,
        "configuration": configuration,
        "planned batch": configurations.get(plans.get("inherits_from"), plans)["batch_size"],
        "batch": plans["batch_size"],
        "patch": plans["patch_size"],
        "epochs": len(re.findall(r"Epoch time:", log)),
        "iterations an epoch": int(
            json.loads((model / "fold_0" / "debug.json").read_text())["num_iterations_per_epoch"]
        ),
        "minutes of training": round(sum(map(float, re.findall(r"Epoch time: ([\d.]+) s", log))) / 60),
        "training cases": int(split[0]),
        "validation cases": int(split[1]),
    }


def handed_back(work: Path) -> dict[str, dict[str, int]]:
    """Segmentations that nnU-Net made of corrected maps, against those beside the maps, and against its first ones."""
    found = {}
    for method in HANDED_BACK:
        names = sorted(path.name for path in (work / f"corrected_{method}" / "maps").glob("*.nii.gz"))
        differ = moved = 0
        for name in names:
            folders = (f"corrected_{method}/maps", f"segmented_{method}", "predicted")
            ours, theirs, before = (np.asarray(nib.nifti1.load(work / folder / name).dataobj) for folder in folders)
            differ += int((ours != theirs).sum())
            moved += int((theirs != before).sum())
        found[method] = {"cases": len(names), "voxels that differ": differ, "voxels that moved": moved}
    return found


def against_its_own(work: Path, found: Evaluated) -> float:
    """Largest difference of a validation case's mean Dice, as measured, from nnU-Net's own of its segmentation."""
    (path,) = (work / "nnUNet_results").glob("*/*/fold_*/validation/summary.json")
    theirs = {
        case_of_file(Path(case["prediction_file"])): np.nanmean([of["Dice"] for of in case["metrics"].values()])
        for case in json.loads(path.read_text())["metric_per_case"]
    }
    assert set(theirs) == {case.case for case in found.cases}
    return max(abs(float(theirs[case.case]) - case.value("mean_dice")) for case in found.cases)


def tables(kept: Mapping[str, Any]) -> dict[str, str]:
    """The page's tables; bold where the interval of the change excludes 0."""
    rows = []
    for row, figures in kept["figures"].items():
        bold = {name: row != PLAIN and (low > 0 or high < 0) for name, (_, low, high) in kept["change"][row].items()}
        rows.append([row, *(cell(figures[name], decimals, bold[name]) for name, (_, decimals) in COLUMNS.items())])
    held = [
        [
            name,
            f"{of['nll']:.4f}",
            f"{of['ece']:.4f}",
            f"{of['volume_error']:.3f}",
            f"{100 * of['labels_changed']:.2f} %",
        ]
        for name, of in kept["corrections"][CHOSEN]["held out"].items()
    ]
    settings = [
        [name, "×".join(map(str, value)) if isinstance(value, list) else str(value)]
        for name, value in kept["nnunet"].items()
    ]
    corrections = [
        [row, f"`{of['method']}`", of["in words"], "; ".join(of["warnings"]) or "–", str(of["labels changed"])]
        for row, of in kept["corrections"].items()
    ]
    return {
        "corrections": as_table(["", "method", "numbers", "warnings", "voxels with another label"], corrections),
        "settings": as_table(["nnU-Net", ""], settings),
        "figures": as_table(["probabilities", *(heading for heading, _ in COLUMNS.values())], rows),
        "candidates": as_table(["candidate", "NLL", "ECE all", "volume error", "labels of the foreground moved"], held),
    }


def main(arguments: list[str]) -> None:
    if arguments:
        write_json(FIGURES, gather(Path(arguments[0])), depth=2)
    write_page("nnunet")


if __name__ == "__main__":
    main(sys.argv[1:])
