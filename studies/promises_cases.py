"""Scores of margins, sets, volumes and false negatives of every validation and test case of a trained run.

``python studies/promises_cases.py RUN --bundle BUNDLE --dataset_dir DATA --cache CACHE [--set NAME=VALUE ...]`` runs
the network once over each case, keeps its logits in ``CACHE``, and adds the run's scores to ``promises_scores.json``.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import monai.bundle
import torch
from monai.data import DataLoader, Dataset
from pages import rounded, write_json

from monai_calib.clinical import (
    ConformalMargin,
    ConformalSets,
    ConformalVolumeFit,
    FalseNegativeControl,
    conformal_from_json,
)
from monai_calib.datasets import load_datalist
from monai_calib.handlers.checkpoint import training_settings
from monai_calib.handlers.weights import load_weights, read_checkpoint
from monai_calib.posthoc import LogitCase, LogitStream

SCORES = Path(__file__).parent / "promises_scores.json"
SPLITS = ("validation", "test")
SHARES = (0.95, 0.99)
THRESHOLDS = 101
"""Points of the curve of false negatives that are kept."""


def cases_of(run: Path, bundle: Path, dataset_dir: Path, cache: Path, settings: dict[str, Any]) -> Iterator[LogitCase]:
    """Cases of validation and test with their logits, from ``cache`` where they are there."""
    trained = training_settings(run / "models")
    known = {name: trained[name] for name in ("network_name", "patch_size", "dropout", "seed") if name in trained}
    workflow = None
    for split in SPLITS:
        kept = cache / f"{run.name}_{split}.pt"
        if not kept.is_file():
            if workflow is None:
                workflow = monai.bundle.ConfigWorkflow(
                    [str(bundle / "configs" / "train.json")], workflow_type="train", logging_file=False,
                    bundle_root=str(bundle), dataset_dir=str(dataset_dir), run_dir=str(run), **{**known, **settings},
                )  # fmt: skip
                workflow.initialize()
            network = workflow.parser.get_parsed_content("network")
            load_weights(network, read_checkpoint(run / "models" / "model.pt"), run / "models" / "model.pt")
            prepare, inferer = (
                workflow.parser.get_parsed_content(f"validate#{n}") for n in ("preprocessing", "inferer")
            )
            data = Dataset(load_datalist(dataset_dir, split), prepare)
            rows = []
            for case in LogitStream(network, DataLoader(data, batch_size=1), inferer):
                row = {"name": case.name, "subject": case.subject, "spacing": case.spacing}
                rows.append({**row, "logits": case.logits.cpu(), "label": case.label.to(torch.uint8).cpu()})
                print(split, case.name, flush=True)
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.save(rows, kept)
        for row in torch.load(kept, weights_only=True):
            yield LogitCase(**row)


def measured(cases: Iterator[LogitCase], class_names: list[str]) -> dict[str, Any]:
    """Of each case, its subject and the scores of each promise, ``None`` for a structure that is not there."""
    found: dict[str, Any] = {"structures": class_names, "cases": [], "subjects": []}
    found |= {f"margin {share}": [] for share in SHARES} | {f"sets {share}": [] for share in SHARES}
    found |= {"volume": [], "missed": []}
    classes = len(class_names)
    for case in cases:
        probability = case.logits.softmax(0)
        kinds = {f"margin {share}": ConformalMargin(classes, share) for share in SHARES}
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


def main() -> int:
    parser = argparse.ArgumentParser(description="Scores of each promise on every validation and test case of a run.")
    parser.add_argument("run", type=Path, metavar="RUN")
    for name in ("bundle", "dataset_dir", "cache"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    settings = {name: ast.literal_eval(value) for name, _, value in (text.partition("=") for text in arguments.set)}
    where = (arguments.run, arguments.bundle, arguments.dataset_dir, arguments.cache, settings)
    config = json.loads((arguments.bundle / "configs" / "train.json").read_text(encoding="utf-8"))
    trained = training_settings(arguments.run / "models")
    told = {name: trained[name] for name in ("bundle", "loss_name", "epochs", "seed")}
    kept = json.loads(SCORES.read_text(encoding="utf-8")) if SCORES.is_file() else {}
    found = measured(cases_of(*where), config["class_names"])
    kept[arguments.run.name] = {"trained": told, **found, "price": prices(cases_of(*where), found)}
    write_json(SCORES, dict(sorted(kept.items())), depth=2)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
