"""Measure every correction after training on finished runs, and write posthoc_results.json and the page's tables.

    python studies/posthoc_results.py DATASET_DIR CACHE RUN...   # measure what is not yet in CACHE, then all tables
    python studies/posthoc_results.py                            # write the tables from posthoc_results.json

Corrections are fitted on the validation cases of a run and measured on its test cases. Logits, fits and figures of each
run and correction are kept below CACHE as they are made, so that a call that was stopped goes on, and a new run costs
itself only. Delete a file there to have it made anew.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pages import cell, rounded, shown, table, write_json
from run_logits import RunLogits, load_logits, name_of, update_page

from monai_calib.handlers.checkpoint import training_settings
from monai_calib.metrics import CalibrationHistogram, Region
from monai_calib.metrics.overlap import dice_coefficients
from monai_calib.metrics.protocols import Protocol
from monai_calib.metrics.protocols import measure as measured_by
from monai_calib.posthoc import Calibrator, LogitCase, build_calibrator, fit
from monai_calib.report.statistics import bootstrap_mean

FIGURES = Path(__file__).with_name("posthoc_results.json")
NONE = "none"
VARIANTS = {
    "temperature": ("temperature", "dilated:2mm"),
    "temperature, all": ("temperature", "all"),
    "temperature, 2 mm band": ("temperature", "boundary:2mm"),
    "classwise temperature": ("classwise_temperature", "dilated:2mm"),
    "vector": ("vector", "dilated:2mm"),
    "vector, all": ("vector", "all"),
    "matrix": ("matrix", "dilated:2mm"),
    "Dirichlet": ("dirichlet", "dilated:2mm"),
    "boundary temperature": ("boundary_temperature", "all"),
    "boundary vector": ("boundary_vector", "all"),
    "histogram binning": ("histogram_binning", "dilated:2mm"),
    "histogram binning, all": ("histogram_binning", "all"),
    "isotonic": ("isotonic", "dilated:2mm"),
    "isotonic, all": ("isotonic", "all"),
    "local temperature, all": ("local_temperature", "all"),
}
"""Row of the tables: method, and the region whose voxels count in the fit. The slowest comes last."""
REGIONS = ("foreground", "predicted", "union", "boundary:2mm", "all")
MEASURED = [
    *((Region.parse(region), "ece") for region in REGIONS),
    *(
        (Region.parse(region), metric)
        for metric, region in (
            ("adaptive_ece", "foreground"),
            ("classwise_ece_paper", "foreground"),
            ("classwise_ece", "all"),
            ("ace", "foreground"),
            ("ace", "all"),
            ("nll", "boundary:2mm"),
            ("nll", "all"),
            ("brier", "boundary:2mm"),
            ("brier", "all"),
        )
    ),
]
BARS = {"ece_foreground_15bins": 0.05, "ece_boundary2mm_15bins": 0.02, "ece_all_15bins": 0.004}
"""The largest ECE that a correction should leave, by region."""
COLUMNS = {
    "regions": {
        "dsc": ("DSC", 3),
        "ece_foreground_15bins": ("ECE foreground", 3),
        "ece_predicted_15bins": ("ECE predicted", 3),
        "ece_union_15bins": ("ECE union", 3),
        "ece_boundary2mm_15bins": ("ECE 2 mm band", 3),
        "ece_all_15bins": ("ECE all", 4),
        "gap_boundary2mm": ("confidence − accuracy, 2 mm band", 3),
    },
    "scores": {
        "adaptive_ece_foreground_15bins": ("adaptive ECE foreground", 3),
        "classwise_ece_paper_foreground_15bins": ("classwise ECE foreground", 3),
        "classwise_ece_all_15bins": ("classwise ECE all", 4),
        "ace_foreground_15bins": ("ACE foreground", 3),
        "ace_all_15bins": ("ACE all", 3),
        "nll_boundary2mm": ("NLL 2 mm band", 3),
        "nll_all": ("NLL all", 4),
        "brier_boundary2mm": ("Brier 2 mm band", 3),
        "brier_all": ("Brier all", 4),
    },
}
"""The two tables of each loss: figure, heading, decimals. All are means over cases (macro)."""


def measure(run: Path, dataset_dir: Path, cache: Path) -> None:
    """Fit and measure what ``cache`` does not hold of a run."""
    kept = cache / "figures" / name_of(training_settings(run / "models"))
    missing = [variant for variant in (NONE, *VARIANTS) if not (kept / f"{variant}.json").is_file()]
    if not missing:
        return
    validation, test = (load_logits(run, split, dataset_dir, cache) for split in ("validation", "test"))
    for variant in missing:
        calibrator = fitted(variant, validation, kept)
        write_json(kept / f"{variant}.json", {"variant": variant, **measured(calibrator, test)})
        print(f"{run}: {variant}", flush=True)


def fitted(variant: str, validation: RunLogits, kept: Path) -> Calibrator | None:
    """The correction of a run, fitted on its validation cases or read from ``kept``; None for no correction."""
    if variant == NONE:
        return None
    path = kept / "fits" / f"{variant}.json"
    if path.is_file():
        return Calibrator.from_json(json.loads(path.read_text(encoding="utf-8")))
    method, region = VARIANTS[variant]
    calibrator = build_calibrator(method, len(validation.class_names), region)
    fit([calibrator], validation.cases)
    write_json(path, calibrator.to_json())
    return calibrator


def measured(calibrator: Calibrator | None, test: RunLogits) -> dict[str, Any]:
    """Figures of each test case, of all together, and how many labels the correction turned over."""
    rows: list[dict[str, float]] = []
    pooled: dict[Region, CalibrationHistogram] = {}
    changed = 0
    for case in test.cases:
        logits = case.logits
        if calibrator is not None:
            logits = calibrator.apply(logits[None], None if case.image is None else case.image[None])[0]
        changed += int((logits.argmax(0) != case.logits.argmax(0)).sum())
        histograms = {region: histogram_of(case, logits, region) for region, _ in MEASURED}
        row = values_of(histograms)
        row["dsc"] = dice(logits.argmax(0), case.label, len(logits))
        row["gap_boundary2mm"] = float(histograms[Region.parse("boundary:2mm")].bins().share_of_gap().sum())
        rows.append(row)
        for region, histogram in histograms.items():
            pooled.setdefault(region, histogram.empty_like()).merge(histogram)
    return {
        "settings": test.settings,
        "loss": test.loss,
        "keeps_argmax": calibrator is None or calibrator.keeps_argmax,
        "temperature": getattr(calibrator, "temperature", None),
        "labels_changed": changed / sum(case.label.numel() for case in test.cases),
        "cases": [case.name for case in test.cases],
        "subjects": test.subjects,
        "figures": {name: [row[name] for row in rows] for name in rows[0]},
        "pooled": values_of(pooled),
    }


def values_of(histograms: Mapping[Region, CalibrationHistogram]) -> dict[str, float]:
    """Every metric of :data:`MEASURED` under its name."""
    values = {}
    for region, kind in MEASURED:
        [metric] = Protocol("measured", [str(region)], [kind]).case_metrics(["classes"])
        values[metric.name] = mean(measured_by(metric, histograms[region]))
    return values


def histogram_of(case: LogitCase, logits: torch.Tensor, region: Region) -> CalibrationHistogram:
    """One region of one case. Before and after the same voxels: regions are drawn from the labels before."""
    voxels = case.mask(region).flatten().nonzero().squeeze(1)
    histogram = CalibrationHistogram(len(logits), strict=False)
    histogram.update(logits.flatten(1)[None, :, voxels], case.label.flatten()[None, voxels])
    return histogram


def dice(predicted: torch.Tensor, label: torch.Tensor, num_classes: int) -> float:
    """Mean Dice of the structures."""
    return mean(dice_coefficients(predicted, label, num_classes))


def mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def summary(cache: Path, names: Sequence[str]) -> dict[str, Any]:
    """Means over cases and seeds of the runs of those names, with intervals over subjects, of what is measured."""
    files = [
        json.loads(path.read_text()) for name in names for path in sorted((cache / "figures" / name).glob("*.json"))
    ]
    losses: dict[str, Any] = {}
    for loss in dict.fromkeys(file["loss"] for file in files):
        variants = {
            variant: sorted(
                (file for file in files if file["loss"] == loss and file["variant"] == variant),
                key=lambda file: file["settings"]["seed"],
            )
            for variant in (NONE, *VARIANTS)
        }
        losses[loss] = {
            variant: summary_of(runs, variants[NONE]) for variant, runs in variants.items() if runs and variants[NONE]
        }
    return losses


def summary_of(runs: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One loss with one correction. The seeds of a case are averaged first, so that they are drawn together."""
    seeds = [run["settings"]["seed"] for run in runs]
    before = [run for run in before if run["settings"]["seed"] in seeds]
    subjects = runs[0]["subjects"]
    figures, change = {}, {}
    for name in runs[0]["figures"]:
        values = np.mean([run["figures"][name] for run in runs], axis=0)
        difference = values - np.mean([run["figures"][name] for run in before], axis=0)
        figures[name] = rounded([*map(float, bootstrap_mean(values, subjects))])
        change[name] = rounded([*map(float, bootstrap_mean(difference, subjects))])
    return {
        "seeds": seeds,
        "cases": len(subjects),
        "subjects": len(set(subjects)),
        "keeps_argmax": runs[0]["keeps_argmax"],
        "labels_changed": rounded(max(run["labels_changed"] for run in runs), 6),
        "temperature": [rounded(run["temperature"], 3) for run in runs if run["temperature"]],
        "figures": figures,
        "change": change,
        "pooled": {name: rounded(mean([run["pooled"][name] for run in runs])) for name in runs[0]["pooled"]},
    }


def loss_table(variants: Mapping[str, Any], columns: Mapping[str, tuple[str, int]]) -> str:
    """A row a correction; the best mean of each column in bold."""

    def badness(name: str, variant: str) -> float:
        value = variants[variant]["figures"][name][0]
        return -value if name == "dsc" else abs(value)

    best = {name: min((badness(name, variant), variant) for variant in variants)[1] for name in columns}
    rows = [
        [
            variant,
            *(cell(row["figures"][name], decimals, variant == best[name]) for name, (_, decimals) in columns.items()),
        ]
        for variant, row in variants.items()
    ]
    return table(["correction", *(heading for heading, _ in columns.values())], rows)


def bars_table(losses: Mapping[str, Any], pooled: bool) -> str:
    """ECE in the foreground, in the band and over the volume, for each loss and correction."""
    rows = []
    for variant in (NONE, *VARIANTS):
        row = [variant]
        for variants in losses.values():
            if variant not in variants:
                row.append("")
                continue
            kept = variants[variant]
            values = {name: kept["pooled"][name] if pooled else kept["figures"][name][0] for name in BARS}
            numbers = []
            for (name, bar), decimals in zip(BARS.items(), (3, 3, 4), strict=True):
                number = shown(values[name], decimals)
                numbers.append(f"**{number}**" if values[name] <= bar else number)
            fewer = len(kept["seeds"]) < len(variants[NONE]["seeds"])
            row.append(
                " / ".join(numbers)
                + (" ✓" if all(values[name] <= BARS[name] for name in BARS) else "")
                + (f" <sup>{len(kept['seeds'])}</sup>" if fewer else "")
            )
        if any(row[1:]):
            rows.append(row)
    return table(["correction", *(f"`{loss}`" for loss in losses)], rows)


def labels_table(losses: Mapping[str, Any]) -> str:
    """Largest share of voxels over the seeds whose label a correction turned over, per 10,000."""
    rows = []
    for variant in VARIANTS:
        found = [variants.get(variant) for variants in losses.values()]
        if not any(found):
            continue
        promised = "no" if next(row for row in found if row)["keeps_argmax"] else "yes"
        cells = ["" if row is None else f"{1e4 * row['labels_changed']:.1f}" for row in found]
        rows.append([variant, promised, *cells])
    return table(["correction", "may change labels", *(f"`{loss}`" for loss in losses)], rows)


def tables(losses: Mapping[str, Any]) -> dict[str, str]:
    """All tables of the page by name."""
    made = {"bars": bars_table(losses, False), "bars pooled": bars_table(losses, True), "labels": labels_table(losses)}
    for loss, variants in losses.items():
        made |= {f"{kind} {loss}": loss_table(variants, columns) for kind, columns in COLUMNS.items()}
    return made


if __name__ == "__main__":
    update_page(sys.argv[1:], FIGURES, measure, summary)
