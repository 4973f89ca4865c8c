"""The same metrics by other packages, by their formulas and by this one, on the same numbers.

    python studies/metric_table.py --python ENV/bin/python   # compute all, with the others in that environment
    python studies/metric_table.py                           # write the page from metric_table.json

The environment: ``pip install torch torch-uncertainty[all] relplot torchmetrics lightning rich`` and
``pip install --pre monai-weekly``; this package is not in it. By formula: MetricsReloaded, which is not on PyPI, and
what no package installs, written here in NumPy over all voxels, without bins finer than the metric's own.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pages import table, write_json, write_page
from scipy.integrate import quad
from scipy.stats import norm

from monai_calib import metrics as m
from monai_calib.inferers import uncertainty_maps
from monai_calib.metrics.raters import thresholded_dice, volume_crps, volume_crps_normal

HERE = Path(__file__).parent
KEPT = HERE / "metric_table.json"
BINS = 15
PACKAGES = ("torch-uncertainty", "MONAI weekly", "torchmetrics", "relplot", "formula")
LAST_DIGITS = 2e-6
"""What float32 in the other packages can change."""

METRICS = {
    # name: words, why a value may differ by more than the last digits
    "ece": ("ECE, top label, 15 bins", ""),
    "mce": ("MCE, top label, 15 bins", ""),
    "rmsce": ("root mean square calibration error, 15 bins", ""),
    "adaptive_ece": ("adaptive ECE, 15 bins of equal mass", "fine bins are not torn apart"),
    "classwise_ece": ("class-wise ECE, 15 bins", ""),
    "classwise_ace": ("ACE, mean over classes, 15 bins", ""),
    "classwise_mce": ("MCE, mean over classes, 15 bins", ""),
    "brier": ("Brier score", ""),
    "root_brier": ("root Brier score", ""),
    "nll": ("NLL", ""),
    "smooth_ece": ("smooth ECE, top label", "others stop at a width of 1/1024"),
    "mmce": ("MMCE, top label, width 0.4", "places within a fine bin"),
    "penalised_ece": ("pECE, 10 bins, weight 2", "places within a fine bin"),
    "aurc": ("AURC", "ties within a fine bin; integrals and sums"),
    "augrc": ("AUGRC", "ties within a fine bin; integrals and sums"),
    "qu_brats": ("QU-BraTS's score of class 1", ""),
    "entropy": ("entropy of an ensemble's mean", ""),
    "mutual_information": ("mutual information of members", ""),
    "disagreement": ("disagreement of pairs of members", ""),
    "thresholded_dice": ("thresholded Dice of class 1 (CURVAS)", ""),
    "crps": ("CRPS of a volume, empirical", ""),
    "crps_normal": ("CRPS of a volume, normal (CURVAS)", ""),
}
TOLERANCES = {
    "smooth_ece": 1e-3,
    "adaptive_ece": 1e-3,
    "mmce": 1e-4,
    "penalised_ece": 1e-4,
    "aurc": 1e-4,
    "augrc": 5e-5,
}


def inputs() -> dict[str, np.ndarray]:
    """Probabilities of four classes from an over-confident ensemble of five, labels, and three raters of class 1."""
    rng = np.random.default_rng(0)
    base = 2 * rng.standard_normal((20000, 4))
    members = _softmax(1.2 * (base + rng.standard_normal((5, 20000, 4)))).astype(np.float32)
    truth = _softmax(base / 1.5).cumsum(1)
    draws = np.stack([(rng.random((20000, 1)) > truth[:, :3]).sum(1) for _ in range(3)])
    return {"probability": members[0], "label": draws[0], "members": members, "raters": draws}


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def ours(data: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """Values of this package, with their bounds where it has some."""
    p, label, members, raters = (torch.from_numpy(data[key]) for key in ("probability", "label", "members", "raters"))
    hist = m.CalibrationHistogram(4)
    hist.update(p.T[None], label[None], from_logits=False)
    maps = uncertainty_maps(member.T[None].log() for member in members)
    shares = torch.nn.functional.one_hot(raters, 4).double().mean(0).T
    volumes = (raters == 1).sum(1).double().tolist()
    volume = float(p[:, 1].double().sum())
    single = {
        "ece": m.ece(hist, BINS),
        "mce": m.mce(hist, BINS),
        "rmsce": m.rmsce(hist, BINS),
        "adaptive_ece": m.adaptive_ece(hist, BINS),
        "classwise_ece": m.classwise_ece(hist, BINS),
        "classwise_ace": float(np.mean([m.ace(hist, BINS, k) for k in range(4)])),
        "classwise_mce": float(np.mean([m.mce(hist, BINS, k) for k in range(4)])),
        "brier": m.brier(hist),
        "root_brier": m.root_brier(hist),
        "nll": m.nll(hist),
        "qu_brats": m.filtered_overlap_of_histogram(hist, 1).score,
        "entropy": float(maps.entropy.double().mean()),
        "mutual_information": float(maps.mutual_information.double().mean()),
        "disagreement": float(maps.disagreement.double().mean()),
        "thresholded_dice": thresholded_dice(p.T, shares)[0],
        "crps": volume_crps(volume, volumes),
        "crps_normal": volume_crps_normal(volume, volumes),
    }
    bounded = {
        "smooth_ece": m.smooth_ece(hist),
        "mmce": m.mmce(hist),
        "penalised_ece": m.penalised_ece(hist),
        "aurc": m.aurc(hist),
        "augrc": m.augrc(hist),
    }
    found: dict[str, list[float]] = {name: [value] for name, value in single.items()}
    found |= {name: list(value) for name, value in bounded.items()}
    return {name: found[name] for name in METRICS}


def by_formula(data: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The formulas over all voxels in NumPy, in double precision."""
    p, label = data["probability"].astype(np.float64), data["label"]
    members, raters = data["members"].astype(np.float64), data["raters"]
    top, hit = p.max(1), (p.argmax(1) == label).astype(np.float64)
    hot = np.eye(4)[label]
    weight, gap = _gaps(top, hit, BINS)
    of_class = [_gaps(p[:, k], hot[:, k], BINS) for k in range(4)]
    residual = hit - top
    risk = np.cumsum((1 - hit)[np.argsort(-data["probability"].max(1), kind="stable")])
    kept = np.arange(1, len(risk) + 1)
    mean = members.mean(0)
    votes = members.argmax(2)
    pairs = [(i, j) for i in range(5) for j in range(i)]
    volume, volumes = p[:, 1].sum(), (raters == 1).sum(1).astype(np.float64)
    fitted = norm(volumes.mean(), volumes.std())
    shares = (raters == 1).mean(0)
    return {
        "ece": float((weight * np.abs(gap)).sum()),
        "mce": float(np.abs(gap).max()),
        "rmsce": float(np.sqrt((weight * gap**2).sum())),
        "adaptive_ece": float(
            np.mean([abs(a.sum()) for a in np.array_split(residual[np.argsort(top)], BINS)]) * BINS / len(top)
        ),
        "classwise_ece": float(np.mean([(w * np.abs(g)).sum() for w, g in of_class])),
        "classwise_ace": float(np.mean([np.abs(g).mean() for _, g in of_class])),
        "classwise_mce": float(np.mean([np.abs(g).max() for _, g in of_class])),
        "brier": float(((p - hot) ** 2).sum(1).mean()),
        "root_brier": float(np.sqrt(((p - hot) ** 2).sum(1).mean())),
        "nll": float(-np.log(p[np.arange(len(p)), label]).mean()),
        "smooth_ece": _smooth_ece(top, hit),
        "mmce": _mmce(top, residual, 0.4),
        "penalised_ece": _penalised_ece(1 - p[:, 0], label != 0, 10, 2.0),
        "aurc": float((risk / kept).mean()),
        "augrc": float((risk - np.diff(risk, prepend=0) / 2).mean() / len(risk)),
        "qu_brats": _qu_brats(p[:, 1], label == 1),
        "entropy": float(-(mean * np.log(mean)).sum(1).mean()),
        "mutual_information": float(-(mean * np.log(mean)).sum(1).mean() + (members * np.log(members)).sum(2).mean()),
        "disagreement": float(np.mean([votes[i] != votes[j] for i, j in pairs])),
        "thresholded_dice": float(np.mean([_dice(p[:, 1] > t, shares > t) for t in np.linspace(0.1, 0.8, 6)])),
        "crps": float(np.abs(volumes - volume).mean() - np.abs(volumes[:, None] - volumes).mean() / 2),
        "crps_normal": float(
            quad(lambda v: fitted.cdf(v) ** 2, volumes.min() - 20 * fitted.std(), volume, limit=500)[0]
            + quad(lambda v: fitted.sf(v) ** 2, volume, max(volume, volumes.max()) + 20 * fitted.std(), limit=500)[0]
        ),
    }


def _gaps(confidence: np.ndarray, hit: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of the voxels and confidence less accuracy of each bin (lower, upper] that holds some."""
    index = np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1).astype(int)
    count = np.bincount(index, minlength=bins)
    filled = count > 0
    surplus = np.bincount(index, confidence - hit, bins)[filled]
    return count[filled] / len(hit), surplus / count[filled]


def _smooth_ece(f: np.ndarray, hit: np.ndarray, points: int = 1500) -> float:
    t = (np.arange(points) + 0.5) / points

    def error(s: float) -> float:
        total = np.zeros(points)
        for part, residual in zip(np.array_split(f, 20), np.array_split(hit - f, 20), strict=True):
            for image in (-2, 0, 2):
                for place in (image + part, image - part):
                    total += norm.pdf(t[:, None], place, s) @ residual
        return float(np.abs(total / len(f)).mean())

    low, high = 0.0, 1.0
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (middle, high) if error(middle) > middle else (low, middle)
    return (low + high) / 2


def _mmce(f: np.ndarray, residual: np.ndarray, width: float) -> float:
    parts = np.array_split(np.arange(len(f)), 20)
    return math.sqrt(sum(residual[a] @ np.exp(-np.abs(f[a][:, None] - f) / width) @ residual for a in parts)) / len(f)


def _penalised_ece(p: np.ndarray, true: np.ndarray, bins: int, weight: float) -> float:
    index = np.clip(np.ceil(p * bins) - 1, 0, bins - 1)
    total = 0.0
    for b in range(bins):
        inside = index == b
        if inside.any():
            wrong = p[inside & ~true]
            offset = weight * wrong.mean() if len(wrong) else 0.0
            total += inside.mean() * abs(p[inside].mean() - true[inside].mean() + offset)
    return float(total)


def _qu_brats(p: np.ndarray, true: np.ndarray) -> float:
    predicted, uncertainty = p > 0.5, 1 - np.abs(2 * p - 1)
    curves = []
    for threshold in np.linspace(0, 1, 41):
        kept = uncertainty <= threshold
        dice = _dice(predicted & kept, true & kept)
        lost = [1 - (side & kept).sum() / side.sum() for side in (predicted & true, ~predicted & ~true)]
        curves.append([dice, 1 - lost[0], 1 - lost[1]])
    values = np.array(curves)
    return float(((values[1:] + values[:-1]) / 2).mean(0).mean())


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum())) if a.any() or b.any() else 1.0


def tables(kept: Mapping[str, Any]) -> dict[str, str]:
    """The page's tables."""
    rows = []
    for name, (words, reason) in METRICS.items():
        mine, others = kept["ours"][name], kept["others"].get(name, {})
        bounds = f" <small>{_digits(mine[1])} … {_digits(mine[2])}</small>" if len(mine) > 1 else ""
        cells = [_digits(others[package]) if package in others else "–" for package in PACKAGES]
        apart = max(abs(value - mine[0]) / max(1.0, abs(value)) for value in others.values())
        rows.append([words, *cells, f"**{_digits(mine[0])}**{bounds}", f"{apart:.0e}", reason or "–"])
    heading = ["metric", *PACKAGES[:-1], "by formula", "ours", "largest difference", "why more than the last digits"]
    versions = ", ".join(f"{package} {number}" for package, number in kept["versions"].items())
    return {"metrics": table(heading, rows), "versions": versions}


def _digits(value: float) -> str:
    return f"{value:.6f}" if abs(value) < 10 else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="interpreter of the environment with the other packages")
    arguments = parser.parse_args()
    if arguments.python:
        data = inputs()
        with tempfile.TemporaryDirectory() as name:
            np.savez(f"{name}/inputs.npz", allow_pickle=False, **data)
            script = [
                arguments.python,
                str(HERE / "metric_table_others.py"),
                f"{name}/inputs.npz",
                f"{name}/others.json",
            ]
            subprocess.run(script, check=True)
            theirs = json.loads(Path(name, "others.json").read_text(encoding="utf-8"))
        others = {metric: theirs["values"].get(metric, {}) for metric in METRICS}
        for metric, value in by_formula(data).items():
            others[metric]["formula"] = value
        write_json(KEPT, {"versions": theirs["versions"], "ours": ours(data), "others": others}, depth=2)
    write_page("metric_table")


if __name__ == "__main__":
    main()
