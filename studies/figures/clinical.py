"""Draw expected against true volumes, and reliability before and after, from the cache of studies/clinical.py.

    python docs/figures/clinical.py DATASET_DIR CACHE CE_RUN DICE_CE_RUN

Volumes are those of the first run's test cases, reliability that of the second's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from posthoc_results import NONE, fitted, histogram_of  # noqa: E402
from run_logits import load_logits, name_of  # noqa: E402

from monai_calib.handlers.checkpoint import training_settings  # noqa: E402
from monai_calib.metrics import Region, bootstrap_reliability  # noqa: E402

SHOWN = {NONE: "as trained", "vector, all": "vector scaling, whole volume"}
CURVES = {
    NONE: ("as trained", "#b2182b"),
    "temperature": ("temperature", "#4393c3"),
    "boundary temperature": ("temperature by distance", "#1b7837"),
}
BLUE, GREY = "#2166ac", "#777777"


def draw_volumes(folder: Path, path: Path) -> None:
    """A panel a structure and correction: expected volume with its 95 % interval over the true one."""
    figure, axes = plt.subplots(2, len(SHOWN), figsize=(4.2 * len(SHOWN), 8), sharex="row", sharey="row")
    for column, (correction, title) in enumerate(SHOWN.items()):
        content: dict[str, Any] = json.loads((folder / f"{correction}.json").read_text(encoding="utf-8"))
        test = {key: np.array(value) for key, value in content["test"].items()}
        for row, structure in enumerate(content["structures"]):
            axis = axes[row, column]
            true, expected, interval = (test[key][:, row] for key in ("true_ml", "expected_ml", "interval"))
            covered = (interval[:, 0] <= true) & (true <= interval[:, 1])
            arms = np.abs(interval.T - expected)
            for inside, colour in ((covered, BLUE), (~covered, "#b2182b")):
                axis.errorbar(
                    true[inside], expected[inside], arms[:, inside], fmt="o", ms=3.5, lw=0.8, color=colour, alpha=0.8
                )
            ends = [min(true.min(), interval.min()), max(true.max(), interval.max())]
            axis.plot(ends, ends, color=GREY, lw=1, ls="--", zorder=0)
            axis.set_xlim(true.min() - 0.1, true.max() + 0.1)
            axis.set_title(f"{structure}, {title}\n{covered.mean():.0%} of intervals hold the truth", fontsize=10)
            axis.set_xlabel("true volume, ml")
            axis.set_ylabel("expected volume, ml")
            axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def draw_reliability(run: Path, dataset_dir: Path, cache: Path, path: Path) -> None:
    """A panel a region: accuracy over confidence of all test voxels, with bands over subjects."""
    name = name_of(training_settings(run / "models"))
    validation, test = (load_logits(run, split, dataset_dir, cache) for split in ("validation", "test"))
    regions = {"foreground": "true foreground", "boundary:2mm": "2 mm around boundaries", "all": "whole volume"}
    figure, axes = plt.subplots(1, len(regions), figsize=(4.2 * len(regions), 4.4), sharey=True)
    for correction, (label, colour) in CURVES.items():
        calibrator = fitted(correction, validation, cache / "figures" / name)
        logits = [c.logits if calibrator is None else calibrator.apply(c.logits[None])[0] for c in test.cases]
        for axis, region in zip(axes, regions, strict=True):
            cases = [histogram_of(c, x, Region.parse(region)) for c, x in zip(test.cases, logits, strict=True)]
            curve = bootstrap_reliability(cases, num_bins=15, groups=test.subjects, samples=300)
            known = (curve.count > 0).numpy()
            x, y, low, high = (
                part.numpy()[known]
                for part in (curve.confidence, curve.accuracy, curve.accuracy_low, curve.accuracy_high)
            )
            axis.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
            axis.plot(x, y, marker="o", ms=3.5, color=colour, label=label)
    for axis, title in zip(axes, regions.values(), strict=True):
        axis.plot([0.35, 1], [0.35, 1], color=GREY, lw=1, ls="--", zorder=0)
        axis.set(title=title, xlabel="confidence", xlim=(0.35, 1.01), ylim=(0.2, 1.01))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("accuracy")
    axes[0].legend(frameon=False, fontsize=9, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main(dataset_dir: Path, cache: Path, ce: Path, dice_ce: Path) -> None:
    draw_volumes(cache / "clinical" / name_of(training_settings(ce / "models")), FOLDER / "clinical_volumes.png")
    draw_reliability(dice_ce, dataset_dir, cache, FOLDER / "posthoc_reliability.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
