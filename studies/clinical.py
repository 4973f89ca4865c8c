"""Measure expected volumes, expected Dice, the quality flag and controlled misses; write clinical.json and its tables.

    python studies/clinical.py DATASET_DIR CACHE RUN...   # measure what is not yet in CACHE, then all tables
    python studies/clinical.py                            # write the tables from clinical.json

CACHE is that of posthoc_results.py: logits and fits are shared.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from clinical_cases import CORRECTIONS, LIMITS, measure
from numpy.typing import NDArray
from pages import cell, rounded, table
from run_logits import update_page
from scipy.stats import rankdata

from monai_calib.report.statistics import bootstrap_mean
from monai_calib.transforms import ConformalVolumeModel

FIGURES = Path(__file__).with_name("clinical.json")
SAMPLES = 1000
WORST = 0.2
"""Share of the test cases, those with the lowest true Dice, that a flag should find."""
VOLUME_COLUMNS = {
    "bias": ("bias, ml", 3),
    "error": ("mean absolute error, ml", 3),
    "label_bias": ("bias of the label map, ml", 3),
    "label_error": ("error of the label map, ml", 3),
    "correlation": ("correlation", 3),
    "label_correlation": ("of the label map", 3),
    "half_width": ("half-width of the 95 % interval, ml", 3),
    "coverage": ("its coverage", 3),
    "conformal_half_width": ("half-width, conformal 90 %, ml", 3),
    "conformal_coverage": ("its coverage", 3),
    "halves_coverage": ("coverage, conformal 95 % on halves", 3),
}
DICE_COLUMNS = {
    "dice": ("true Dice", 3),
    "bias": ("bias", 3),
    "error": ("mean absolute error", 3),
    "correlation": ("correlation", 2),
    "area": ("AUC, worst fifth", 2),
    "flagged": ("flagged", 2),
    "found": ("of the worst fifth found", 2),
}
MISS_COLUMNS = {
    "label": ("missed by the label map", 3),
    **{f"missed_{limit:g}": (f"missed, limit {limit:g}", 3) for limit in LIMITS},
    **{f"kept_{limit:g}": (f"kept / true volume, limit {limit:g}", 2) for limit in LIMITS},
}

Statistic = Callable[..., float]


def correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float(np.corrcoef(x, y)[0, 1])


def area_of_worst(score: NDArray[np.float64], dice: NDArray[np.float64]) -> float:
    """Chance that one of the worst cases has a lower score than one of the others (area under the ROC curve)."""
    worst = dice <= np.quantile(dice, WORST)
    ranks = rankdata(-score)
    positives, negatives = worst.sum(), (~worst).sum()
    return float((ranks[worst].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def bootstrapped(statistic: Statistic, columns: Sequence[NDArray[np.float64]], subjects: Sequence[str]) -> list[float]:
    """A statistic of cases, averaged over seeds, with its interval over subjects; columns are ``(seeds, cases)``."""
    rows = [np.flatnonzero(np.array(subjects) == subject) for subject in dict.fromkeys(subjects)]
    rng = np.random.default_rng(0)

    def value(cases: NDArray[np.int64]) -> float:
        return float(np.mean([statistic(*(column[cases] for column in seed)) for seed in zip(*columns, strict=True)]))

    drawn = [value(np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])) for _ in range(SAMPLES)]
    return [value(np.arange(len(subjects))), *map(float, np.quantile(drawn, [0.025, 0.975]))]


def averaged(values: NDArray[np.float64], subjects: Sequence[str]) -> list[float]:
    """A mean over cases and seeds ``(seeds, cases)``, with its interval over subjects."""
    return [*map(float, bootstrap_mean(values.mean(0), subjects))]


def halves_coverage(scores: NDArray[np.float64], subjects: Sequence[str], level: float = 0.95) -> list[float]:
    """How often conformal intervals cover when one half of the test subjects is fitted on and the other measured.

    Over 200 random halves, each seed on its own; a case of each measured subject weighs one over its number of cases.
    The interval is the middle 95 % of the halves.
    """
    rng = np.random.default_rng(0)
    names = list(dict.fromkeys(subjects))
    rows = {name: np.flatnonzero(np.array(subjects) == name) for name in names}
    covered = []
    for _ in range(200):
        order = rng.permutation(names)
        fit, rest = order[: len(names) // 2], order[len(names) // 2 :]
        of_seeds = []
        for seed in scores:
            model = ConformalVolumeModel(3.0, scores=[seed[rows[name]].tolist() for name in fit])
            of_seeds.append(np.mean([np.mean(seed[rows[name]] <= model.quantile(level)) for name in rest]))
        covered.append(np.mean(of_seeds))
    return [float(np.mean(covered)), *map(float, np.quantile(covered, [0.025, 0.975]))]


def summary_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures of one loss with one correction, over its seeds."""
    subjects = runs[0]["subjects"]
    data = {key: np.array([run["test"][key] for run in runs], dtype=np.float64) for key in runs[0]["test"]}
    volumes, misses = {}, {}
    for k, structure in enumerate(runs[0]["structures"]):
        true, expected, label = (data[key][:, :, k] for key in ("true_ml", "expected_ml", "label_ml"))
        volumes[structure] = {
            "true": averaged(true, subjects),
            "bias": averaged(expected - true, subjects),
            "error": averaged(abs(expected - true), subjects),
            "label_bias": averaged(label - true, subjects),
            "label_error": averaged(abs(label - true), subjects),
            "correlation": bootstrapped(correlation, (expected, true), subjects),
            "label_correlation": bootstrapped(correlation, (label, true), subjects),
            "halves_coverage": halves_coverage(data["score"][:, :, k], subjects),
            "correlation_mm": [run["correlation_mm"][k] for run in runs],
            "inflation": [run["inflation"][k] for run in runs],
        }
        for name, key in (("", "interval"), ("conformal_", "conformal")):
            low, high = data[key][:, :, k, 0], data[key][:, :, k, 1]
            volumes[structure][f"{name}coverage"] = averaged(
                ((low <= true) & (true <= high)).astype(np.float64), subjects
            )
            volumes[structure][f"{name}half_width"] = averaged(high - expected, subjects)
        misses[structure] = {
            "label": averaged(data["missed_label"][:, :, k], subjects),
            **{key: averaged(data[key][:, :, k], subjects) for key in data if key.startswith(("missed_0", "kept_"))},
        }
    return rounded(
        {
            "seeds": [run["settings"]["seed"] for run in runs],
            "cases": len(subjects),
            "subjects": len(set(subjects)),
            "volumes": volumes,
            "misses": misses,
            "dice": dice_figures(runs, data, subjects),
        }
    )


def dice_figures(
    runs: Sequence[Mapping[str, Any]], data: Mapping[str, NDArray[np.float64]], subjects: Sequence[str]
) -> dict[str, Any]:
    """Expected against true Dice, both the mean of a case's structures, and a flag set on validation cases.

    The flag falls below the expected Dice that a fifth of the validation cases stay below.
    """
    true, expected = data["dice"].mean(2), data["expected_dice"].mean(2)
    bars = [float(np.quantile(np.mean(run["validation_expected_dice"], axis=1), WORST)) for run in runs]
    flagged = expected < np.array(bars)[:, None]
    worst = true <= np.quantile(true, WORST, axis=1, keepdims=True)
    return {
        "dice": averaged(true, subjects),
        "bias": averaged(expected - true, subjects),
        "error": averaged(abs(expected - true), subjects),
        "correlation": bootstrapped(correlation, (expected, true), subjects),
        "area": bootstrapped(area_of_worst, (expected, true), subjects),
        "flagged": averaged(flagged.astype(np.float64), subjects),
        "found": bootstrapped(
            lambda flag, bad: float(flag[bad > 0].mean()) if bad.any() else 0.0,
            (flagged.astype(np.float64), worst.astype(np.float64)),
            subjects,
        ),
    }


def summary(cache: Path, names: Sequence[str]) -> dict[str, Any]:
    """All losses and corrections of the runs of those names, each loss over the seeds that all its rows have."""
    files = [json.loads(p.read_text()) for name in names for p in sorted((cache / "clinical" / name).glob("*.json"))]
    losses: dict[str, Any] = {}
    for loss in dict.fromkeys(file["loss"] for file in files):
        runs = {
            c: {f["settings"]["seed"]: f for f in files if (f["loss"], f["correction"]) == (loss, c)}
            for c in CORRECTIONS
        }
        measured = {correction: of_seed for correction, of_seed in runs.items() if of_seed}
        common = sorted(set.intersection(*map(set, measured.values())))
        if common:
            losses[loss] = {c: summary_of([of_seed[seed] for seed in common]) for c, of_seed in measured.items()}
    return losses


def part_table(losses: Mapping[str, Any], part: Sequence[str], columns: Mapping[str, tuple[str, int]]) -> str:
    """A row a loss and correction."""
    rows = []
    for loss, corrections in losses.items():
        for correction, figures in corrections.items():
            for key in part:
                figures = figures[key]
            rows.append([f"`{loss}`", correction, *(cell(figures[name], d) for name, (_, d) in columns.items())])
    return table(["loss", "correction", *(heading for heading, _ in columns.values())], rows)


def tables(losses: Mapping[str, Any]) -> dict[str, str]:
    """All tables of the page by name."""
    structures = next(iter(next(iter(losses.values())).values()))["volumes"]
    seeds = [
        [f"`{loss}`", " ".join(map(str, next(iter(corrections.values()))["seeds"]))]
        for loss, corrections in losses.items()
    ]
    made = {
        "seeds": table(["loss", "seeds"], seeds),
        "dice": part_table(losses, ["dice"], DICE_COLUMNS),
    }
    for structure in structures:
        made[f"volumes {structure}"] = part_table(losses, ["volumes", structure], VOLUME_COLUMNS)
        made[f"misses {structure}"] = part_table(losses, ["misses", structure], MISS_COLUMNS)
    return made


if __name__ == "__main__":
    update_page(sys.argv[1:], FIGURES, measure, summary)
