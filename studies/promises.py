"""Are the promises kept? Margins, sets, volumes and false negatives over 1,000 re-splits of the subjects.

    python studies/promises_cases.py RUN --dataset_dir DATA --cache CACHE   # scores of a run's cases
    python studies/promises.py                                              # re-split, write the page

Subjects of validation and test are put in random order; the first half is fitted on, the other is the test. Subjects
are never on both sides. Coverage of a re-split is the mean over test subjects of the share of their cases served.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pages import cell, rounded, shown, table, write_json, write_page

from monai_calib.clinical import conformal_threshold, subject_quantile

HERE = Path(__file__).parent
SCORES, FIGURES = HERE / "promises_scores.json", HERE / "promises.json"
SPLITS = 1000
LEVEL = 0.9
LIMIT = 0.1
RUNS = {
    "hippo3d_dice_ce_e10_s0": "hippocampus, 3D",
    "acdc3d_dice_ce_e24_s0": "heart, 3D",
    "acdc2d_dice_ce_e16_s0": "heart, 2D",
}
PROMISES = {
    "margin 0.95": "margin over 95 %",
    "margin 0.99": "margin over 99 %",
    "sets 0.95": "sets, 95 %",
    "sets 0.99": "sets, 99 %",
    "volume": "volume",
}


def resplit(scores: Sequence[Any], subjects: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Coverage over the re-splits of one structure's scores, the quantiles found, and the usual quantile's coverage.

    The usual quantile takes cases for independent and forgets the next one: the 90th percentile of the cases' scores.
    """
    of_subject: dict[str, list[float]] = {}
    for subject, score in zip(subjects, scores, strict=True):
        if score is not None:
            of_subject.setdefault(subject, []).append(math.inf if score == "inf" else score)
    rows = list(of_subject.values())
    half, rng = len(rows) // 2, np.random.default_rng(seed)
    covered, found, usual = [], [], []
    for _ in range(SPLITS):
        order = rng.permutation(len(rows))
        known, new = [rows[i] for i in order[:half]], [rows[i] for i in order[half:]]
        quantile = subject_quantile(known, LEVEL)
        found.append(quantile)
        covered.append(_served(new, quantile))
        pooled = np.sort([score for row in known for score in row])
        usual.append(_served(new, float(pooled[math.ceil(LEVEL * len(pooled)) - 1])))
    return {
        "subjects": half,
        "coverage": _spread(covered),
        "usual": _spread(usual),
        "exactly": math.ceil(LEVEL * (half + 1) - 1e-9) / (half + 1),
        "quantile": [float(q) for q in np.quantile(found, (0.5, 0.05, 0.95))],
    }


def resplit_missed(curves: Sequence[Any], subjects: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Mean share missed over the re-splits, with thresholds that promise a tenth on average over subjects."""
    of_subject: dict[str, list[Any]] = {}
    for subject, curve in zip(subjects, curves, strict=True):
        if curve is not None:
            of_subject.setdefault(subject, []).append(curve)
    rows = np.array([np.mean(of, axis=0) for of in of_subject.values()])
    half, rng = len(rows) // 2, np.random.default_rng(seed)
    missed, thresholds = [], []
    for _ in range(SPLITS):
        order = rng.permutation(len(rows))
        found = conformal_threshold(torch.from_numpy(rows[order[:half]]), LIMIT)
        thresholds.append(found.threshold)
        missed.append(float(rows[order[half:], round(found.threshold * (rows.shape[1] - 1))].mean()))
    return {"subjects": half, "missed": _spread(missed), "threshold": float(np.median(thresholds))}


def _served(rows: Sequence[Sequence[float]], quantile: float) -> float:
    return float(np.mean([np.mean(np.array(row) <= quantile) for row in rows]))


def _spread(values: Sequence[float]) -> list[float]:
    """Mean, and the 5th and 95th percentile over re-splits."""
    return [float(np.mean(values)), *(float(q) for q in np.quantile(values, (0.05, 0.95)))]


def summary(scores: dict[str, Any]) -> dict[str, Any]:
    """All figures of the page, by run, structure and promise."""
    kept: dict[str, Any] = {}
    for run, name in RUNS.items():
        of_run = scores[run]
        part: dict[str, Any] = {}
        for k, structure in enumerate(of_run["structures"]):
            subjects = of_run["subjects"]
            rows = {p: [row[k] for row in of_run[p]] for p in (*PROMISES, "missed")}
            part[structure] = {p: resplit(rows[p], subjects) for p in PROMISES if k or p.startswith("sets")}
            if k:
                part[structure]["missed"] = resplit_missed(rows["missed"], subjects)
                part[structure]["price"] = {
                    p: float(np.median([row[k - 1] for row in ratios])) for p, ratios in of_run["price"].items()
                }
        kept[name] = part
    flat = [
        of
        for part in kept.values()
        for of_structure in part.values()
        for p, of in of_structure.items()
        if p in PROMISES
    ]
    missed = [
        of_structure["missed"]["missed"][0]
        for part in kept.values()
        for of_structure in part.values()
        if "missed" in of_structure
    ]
    least = min(of["coverage"][0] for of in flat)
    told = {
        "cases": sum(len(scores[run]["cases"]) for run in RUNS),
        "rows": len(flat),
        "least": least,
        "most": max(of["coverage"][0] for of in flat),
    }
    told |= {"least of a re-split": min(of["coverage"][1] for of in flat), "most missed": max(missed)}
    told |= {"usual least": min(of["usual"][0] for of in flat), "usual most": max(of["usual"][0] for of in flat)}
    told["usual below"] = sum(of["usual"][0] < LEVEL for of in flat)
    return rounded({"told": told, **kept}, 4)


def tables(kept: dict[str, Any]) -> dict[str, str]:
    """The tables of the page by name."""
    rows, prices, misses = [], [], []
    for name in RUNS.values():
        for structure, of in kept[name].items():
            for promise, words in PROMISES.items():
                if promise in of:
                    one = of[promise]
                    rows.append([
                        name, structure, words, str(one["subjects"]), _mm(promise, one["quantile"]),
                        cell(one["coverage"], 3), shown(one["exactly"], 3), cell(one["usual"], 3),
                    ])  # fmt: skip
            if "price" in of:
                prices.append([name, structure, *(f"× {shown(of['price'][p], 2)}" for p in of["price"])])
                one = of["missed"]
                misses.append(
                    [name, structure, str(one["subjects"]), shown(one["threshold"], 2), cell(one["missed"], 3)]
                )
    where = ["data, network", "structure"]
    coverage = [
        "promise",
        "subjects fitted on",
        "found",
        "coverage",
        "of ranks without ties",
        "coverage, usual quantile",
    ]
    price = ["with margin, 95 %", "with margin, 99 %", "possible, 95 %", "possible, 99 %"]
    return {
        "coverage": table([*where, *coverage], rows),
        "price": table([*where, *price], prices),
        "missed": table([*where, "subjects fitted on", "threshold", "missed"], misses),
    }


def _mm(promise: str, quantile: Sequence[float]) -> str:
    if promise.startswith("sets"):
        low, high = -quantile[2], -quantile[1]
        return f"{-quantile[0]:.3g} <small>{low:.3g} … {high:.3g}</small>"
    unit = " mm" if promise.startswith("margin") else " s"
    return f"{quantile[0]:.3g}{unit} <small>{quantile[1]:.3g} … {quantile[2]:.3g}</small>"


def main() -> None:
    write_json(FIGURES, summary(json.loads(SCORES.read_text(encoding="utf-8"))), depth=3)
    write_page("promises")


if __name__ == "__main__":
    main()
