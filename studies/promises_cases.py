"""Scores of margins, sets, volumes and false negatives of every validation and test case of a trained run.

``python studies/promises_cases.py RUN --dataset_dir DATA --cache CACHE [--set NAME=VALUE ...]`` runs the network once
over each case, keeps its logits in ``CACHE``, and adds the run's scores to ``promises_scores.json``.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pages import rounded, write_json
from run_logits import SPLITS, load_logits
from trained_run import BUNDLES

from monai_calib.clinical import (
    ConformalMargin,
    ConformalSets,
    ConformalVolumeFit,
    FalseNegativeControl,
    conformal_from_json,
)
from monai_calib.handlers.checkpoint import training_settings
from monai_calib.posthoc import LogitCase

SCORES = Path(__file__).parent / "promises_scores.json"
SHARES = (0.95, 0.99)
THRESHOLDS = 101
"""Points of the curve of false negatives that are kept."""


def cases_of(run: Path, dataset_dir: Path, cache: Path, overrides: dict[str, Any]) -> Iterator[LogitCase]:
    """Cases of validation and test with their logits and subjects."""
    for split in SPLITS:
        found = load_logits(run, split, dataset_dir, cache, overrides)
        for case, subject in zip(found.cases, found.subjects, strict=True):
            case.subject = subject
            yield case


def measured(cases: Iterator[LogitCase], class_names: list[str]) -> dict[str, Any]:
    """Of each case, its subject and the scores of each promise, ``None`` for a structure that is not there."""
    found: dict[str, Any] = {"structures": class_names, "cases": [], "subjects": []}
    found |= {f"margin {share}": [] for share in SHARES} | {f"sets {share}": [] for share in SHARES}
    found |= {"volume": [], "missed": []}
    classes = len(class_names)
    for case in cases:
        probability = case.logits.softmax(0)
        kinds: dict[str, Any] = {f"margin {share}": ConformalMargin(classes, share) for share in SHARES}
        kinds |= {f"sets {share}": ConformalSets(classes, share) for share in SHARES}
        kinds |= {"volume": ConformalVolumeFit(classes), "missed": FalseNegativeControl(classes)}
        found["cases"].append(case.name)
        found["subjects"].append(case.subject)
        for name, kind in kinds.items():
            kind.update(probability, case.label, case.spacing, case.subject)
            found[name].append([_plain(next(iter(of.values()))[0]) if of else None for of in kind._scores])
    return found


def prices(cases: Iterator[LogitCase], found: dict[str, Any]) -> dict[str, list[list[float]]]:
    """Volume of each structure with its margin, and of the voxels that may be it, over its true volume, case by case.

    Margins and sets are those that all subjects together give, at a level of 0.9.
    """
    made = {f"{kind} {share}": _of_all(found, kind, share) for kind in ("margin", "sets") for share in SHARES}
    ratios: dict[str, list[list[float]]] = {name: [] for name in made}
    for case in cases:
        probability = case.logits.softmax(0)
        true = [int((case.label == k).sum()) for k in range(1, len(probability))]
        for name, kind in made.items():
            masks = kind.apply(probability, case.spacing)[-len(true) :]
            ratios[name].append([round(float(mask.sum()) / size, 4) for mask, size in zip(masks, true, strict=True)])
    return ratios


def _of_all(found: dict[str, Any], kind: str, share: float) -> Any:
    made = (ConformalMargin if kind == "margin" else ConformalSets)(len(found["structures"]), share)
    rows = found[f"{kind} {share}"]
    scores: list[dict[str, list[float | None]]] = [{} for _ in found["structures"]]
    for subject, row in zip(found["subjects"], rows, strict=True):
        for of_class, score in zip(scores, row, strict=True):
            if score is not None:
                of_class.setdefault(subject, []).append(None if score == "inf" else score)
    return conformal_from_json({**made.to_json(), "scores": [list(of_class.values()) for of_class in scores]})


def _plain(score: Any) -> Any:
    if isinstance(score, torch.Tensor):
        return rounded(score[:: (len(score) - 1) // (THRESHOLDS - 1)].tolist(), 4)
    return "inf" if score == math.inf else round(score, 6)


def main() -> None:
    parser = argparse.ArgumentParser(description="Scores of each promise on every validation and test case of a run.")
    parser.add_argument("run", type=Path, metavar="RUN")
    for name in ("dataset_dir", "cache"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    settings = {name: ast.literal_eval(value) for name, _, value in (text.partition("=") for text in arguments.set)}
    where = (arguments.run, arguments.dataset_dir, arguments.cache, settings)
    trained = training_settings(arguments.run / "models")
    told = {name: trained[name] for name in ("bundle", "loss_name", "epochs", "seed")}
    kept = json.loads(SCORES.read_text(encoding="utf-8")) if SCORES.is_file() else {}
    config = json.loads((BUNDLES / trained["bundle"] / "configs" / "train.json").read_text(encoding="utf-8"))
    found = measured(cases_of(*where), config["class_names"])
    kept[arguments.run.name] = {"trained": told, **found, "price": prices(cases_of(*where), found)}
    write_json(SCORES, dict(sorted(kept.items())), depth=2)


if __name__ == "__main__":
    main()
