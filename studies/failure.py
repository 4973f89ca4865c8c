"""Does a network know which of its cases are bad? Confidences of cases, judged by risk and coverage; a quality flag.

    python studies/failure.py "NAME=RUN[,RUN...]" --dataset_dir DATA --cache CACHE [--set NAME=VALUE]   # measure a row
    python studies/failure.py                                                        # write the page from failure.json

Several runs are an ensemble. Kept are the scores of every case, from which the page's tables are computed. Corrected is
with the correction that ``auto`` chose for these networks (auto_correction.json), fitted on validation.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import warnings
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pages import cell, rounded, shown, table, write_json, write_page
from run_logits import load_logits
from scipy.ndimage import gaussian_filter
from trained_run import BUNDLES

from monai_calib.clinical import FailureDetection, QualityThreshold, confidence_scores, failure_detection
from monai_calib.inferers import log_mean_probability
from monai_calib.labels import top_class
from monai_calib.metrics import CalibrationHistogram, augrc, aurc
from monai_calib.metrics.overlap import dice_coefficients
from monai_calib.posthoc import LogitCase, default_candidates, fit

KEPT = Path(__file__).with_name("failure.json")
CORRECTION = "boundary_temperature"
SCORES = {
    "expected_dice": "expected Dice, mean of structures",
    "least_expected_dice": "expected Dice, least structure",
    "boundary_certainty": "entropy, 2 mm band",
    "predicted_certainty": "entropy, predicted foreground",
    "pairwise_dice": "pairwise Dice of members",
}
STATES = ("none", CORRECTION)
LEVELS = (("none", "dice"), ("none", "expected_dice"), (CORRECTION, "expected_dice"))
FAILED_BELOW, MISS_RATES = {"hippocampus": 0.85, "ACDC": 0.7}, (0.1, 0.2)


def degraded(case: dict[str, Any]) -> dict[str, Any]:
    """A case whose image has got worse: by noise, blur, contrast or a ghost, drawn by its name, from hardly to much."""
    image = case["image"]
    rng = np.random.default_rng(zlib.crc32(Path(image.meta["filename_or_obj"]).name.encode()))
    kind, strength = rng.integers(4), rng.random()
    values = image.numpy().astype(np.float64)
    low, high = np.percentile(values, [1, 99])
    if kind == 0:
        values = values + rng.normal(0, 0.4 * strength * (high - low), values.shape)
    elif kind == 1:
        values = np.stack([gaussian_filter(channel, 3 * strength) for channel in values])
    elif kind == 2:
        scaled = ((values - low) / (high - low)).clip(0, 1)
        values = low + (high - low) * scaled ** (4.0**strength if rng.random() < 0.5 else 0.25**strength)
    else:
        values = values + strength * np.roll(values - values.mean(), values.shape[2] // 4, axis=2)
    changed = image.clone()
    changed[:] = torch.from_numpy(values).to(image.dtype)
    return {**case, "image": changed}


def measure(
    runs: list[Path], dataset_dir: Path, cache: Path, overrides: Mapping[str, Any], degrade: bool = False
) -> dict[str, Any]:
    """Scores and Dice of every validation and test case, as the network says and corrected.

    With ``degrade`` the test images have got worse; validation, on which everything is fitted, has not.
    """
    changes = {"validation": None, "test": degraded if degrade else None}
    loaded = {
        split: [load_logits(run, split, dataset_dir, cache, overrides, change) for run in runs]
        for split, change in changes.items()
    }
    first = loaded["test"][0]
    classes = len(first.class_names)
    cases = {
        split: [_averaged(members) for members in zip(*(m.cases for m in of), strict=True)]
        for split, of in loaded.items()
    }
    labels = {
        split: [
            torch.stack([top_class(c.logits).long() for c in members])
            for members in zip(*(m.cases for m in of), strict=True)
        ]
        for split, of in loaded.items()
    }
    config = json.loads((BUNDLES / first.settings["bundle"] / "configs" / "train.json").read_text(encoding="utf-8"))
    axis = config["validate"]["inferer"].get("spatial_dim")
    (candidate,) = (c for c in default_candidates(classes) if c.name == CORRECTION)
    calibrator = candidate.build(classes, axis)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit([calibrator], cases["validation"])
    row: dict[str, Any] = {"seeds": [run.settings["seed"] for run in loaded["test"]], "voxels": {}, "cases": {}}
    for state in STATES:
        pooled = CalibrationHistogram(classes)
        for split, of_split in cases.items():
            kept = []
            for case, subject, members in zip(of_split, loaded[split][0].subjects, labels[split], strict=True):
                logits = case.logits if state == "none" else calibrator.apply_case(case)
                probability, label = logits.float().softmax(0), case.label.reshape(logits.shape[1:]).long()
                scores = confidence_scores(probability, case.spacing, members=members if len(members) > 1 else None)
                dice = dice_coefficients(top_class(probability), label, classes)
                kept.append(
                    {
                        "case": case.name,
                        "subject": subject,
                        "dice": float(np.nanmean(dice)),
                        "least_dice": float(np.nanmin(dice)),
                        **scores,
                    }
                )
                if split == "test":
                    pooled.update(logits[None], label[None])
            row["cases"].setdefault(state, {})[split] = kept
        row["voxels"][state] = {"aurc": list(aurc(pooled)), "augrc": list(augrc(pooled)), "voxels": pooled.voxels}
    return row


def _averaged(members: tuple[LogitCase, ...]) -> LogitCase:
    first = members[0]
    if len(members) == 1:
        return first
    logits = log_mean_probability(member.logits[None] for member in members)[0]
    return LogitCase(first.name, logits, first.label, first.image, first.spacing)


@lru_cache
def _detection(text: str, score: str) -> FailureDetection | None:
    cases = json.loads(text)
    if score not in cases[0]:
        return None
    confidence = [math.nan if case[score] is None else case[score] for case in cases]
    return failure_detection(confidence, [case["dice"] for case in cases], [case["subject"] for case in cases])


def detection(row: Mapping[str, Any], state: str, score: str) -> FailureDetection | None:
    """Figures of one confidence on the test cases, None of a row that does not have it."""
    return _detection(json.dumps(row["cases"][state]["test"]), score)


def tables(kept: Mapping[str, Any]) -> dict[str, str]:
    """The page's tables."""
    ranking, before_after, levels, flags, voxels = [], [], [], [], []
    for name, row in kept.items():
        of_row = {score: detection(row, "none", score) for score in SCORES}
        random = next(found for found in of_row.values() if found is not None)
        ranking.append(
            [
                f"**{name}**",
                "random order",
                shown(random.random_aurc.value, 3),
                "",
                shown(random.random_aurc.value / 2, 3),
                "0",
            ]
        )
        ranking.append(["", "perfect order", shown(random.perfect_aurc.value, 3), "0", "", "1"])
        for score, words in SCORES.items():
            found = of_row[score]
            if found is None:
                continue
            told = found.spearman.low > 0
            values = (found.aurc, found.e_aurc, found.augrc)
            ranking.append(
                ["", words, *(cell(value[:3], 3) for value in values), cell(found.spearman[:3], 2, bold=told)]
            )
            after = detection(row, CORRECTION, score)
            assert after is not None
            before_after.append(
                [
                    name,
                    words,
                    *(
                        f"{shown(a, d)} → {shown(b, d)}"
                        for a, b, d in (
                            (found.e_aurc.value, after.e_aurc.value, 3),
                            (found.spearman.value, after.spearman.value, 2),
                        )
                    ),
                ]
            )
        voxels.append([name, *(_bounds(row["voxels"][s][area]) for s in STATES for area in ("aurc", "augrc"))])
        levels.append(level_cells(row, name))
        for rate in MISS_RATES:
            flags.append([name, *flag_cells(row, name, rate)])
    return {
        "ranking": table(["network", "confidence", "AURC ↓", "E-AURC ↓", "AUGRC ↓", "Spearman ↑"], ranking),
        "before_after": table(["network", "confidence", "E-AURC", "Spearman"], before_after),
        "levels": table(["network", "true Dice", "expected", "expected, corrected"], levels),
        "flags": table(
            [
                "network",
                "failed: a structure's Dice below",
                "stated miss rate",
                "validation subjects with a failed case",
                "look below",
                "test: failed cases",
                "of them missed",
                "good cases flagged",
            ],
            flags,
        ),
        "voxels": table(["network", "AURC", "AUGRC", "AURC, corrected", "AUGRC, corrected"], voxels),
    }


def _bounds(area: list[float]) -> str:
    value, low, high = (shown(number, 5) for number in area)
    return f"{value} <small>{low} … {high}</small>"


def level_cells(row: Mapping[str, Any], name: str) -> list[str]:
    """Mean true Dice of the test cases, and what is expected of them."""
    return [name, *(shown(level(row, state, key), 3) for state, key in LEVELS)]


def level(row: Mapping[str, Any], state: str, key: str) -> float:
    """Mean over the test cases."""
    return float(np.mean([case[key] for case in row["cases"][state]["test"]]))


def flag(row: Mapping[str, Any], name: str, rate: float, state: str = CORRECTION) -> dict[str, float]:
    """The threshold set on validation with the least expected Dice, and what it does on the test cases."""
    below = FAILED_BELOW[name.split()[0]]
    validation, test = (row["cases"][state][split] for split in ("validation", "test"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        score, dice, subject = (
            [case[key] for case in validation] for key in ("least_expected_dice", "least_dice", "subject")
        )
        fitted = QualityThreshold.fit(score, dice, subject, failed_below=below, miss_rate=rate)
    failed = [case for case in test if case["least_dice"] < below]
    good = [case for case in test if not case["least_dice"] < below]
    missed = sum(not fitted.flags(case["least_expected_dice"]) for case in failed)
    flagged = sum(fitted.flags(case["least_expected_dice"]) for case in good)
    return {
        "below": below,
        "subjects": fitted.failed_subjects,
        "threshold": fitted.threshold,
        "failed": len(failed),
        "missed": missed,
        "good": len(good),
        "flagged": flagged,
    }


def flag_cells(row: Mapping[str, Any], name: str, rate: float) -> list[str]:
    found = flag(row, name, rate)
    threshold = shown(found["threshold"], 3) if math.isfinite(found["threshold"]) else "every case: too few"
    return [
        shown(found["below"], 2),
        shown(rate, 1),
        str(found["subjects"]),
        threshold,
        str(found["failed"]),
        f"{found['missed']}",
        f"{found['flagged']} of {found['good']}",
    ]


def figure(kept: Mapping[str, Any], path: str) -> float:
    """A number by its path: ``NAME | none | expected_dice | spearman | value``, or ``NAME | flag | 0.2 | missed``."""
    name, kind, *rest = path.split(" | ")
    if kind == "flag":
        return float(flag(kept[name], name, float(rest[0]))[rest[1]])
    if kind == "level":
        return level(kept[name], *rest)
    if kind == "voxels":
        return float(kept[name]["voxels"][rest[0]][rest[1]][int(rest[2])])
    found = detection(kept[name], kind, rest[0])
    assert found is not None, path
    return float(getattr(getattr(found, rest[1]), rest[2] if len(rest) > 2 else "value"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", nargs="?", metavar="NAME=RUN[,RUN...]")
    parser.add_argument("--dataset_dir", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--degrade", action="store_true", help="make the test images worse, see degraded()")
    arguments = parser.parse_args()
    if arguments.row:
        name, _, runs = arguments.row.partition("=")
        overrides = {key: ast.literal_eval(value) for key, value in (pair.split("=", 1) for pair in arguments.set)}
        row = measure(
            [Path(run) for run in runs.split(",")], arguments.dataset_dir, arguments.cache, overrides, arguments.degrade
        )
        kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else {}
        write_json(KEPT, kept | {name: rounded(_plain(row), 6)}, depth=5)
    write_page("failure")


def _plain(value: Any) -> Any:
    """NaN as null, for JSON."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


if __name__ == "__main__":
    main()
