"""Draw the picture of README: a slice and its doubt, and reliability, before and after the correction that was chosen.

    python studies/figures/before_after.py RUN

RUN is the run of hippocampus of studies/own_images.py: ``run_hippocampus/runs/<bundle>/unet/dice_ce/seed_0``. The case
is the one of median DSC. What is drawn is what the network says, no image of a patient.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt

from monai_calib.metrics import bootstrap_reliability
from monai_calib.metrics.evaluated import read_evaluated

REGION = "boundary2mm"
EVALUATED = {"before": ("eval", "#b2182b"), "after": ("posthoc/auto/eval", "#2166ac")}


def main(run: Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), width_ratios=[1, 1, 1.8], layout="constrained")
    before = read_evaluated(run / "eval")
    dice = before.values("mean_dice")
    middle = before.cases[int(np.argsort(dice)[len(dice) // 2])].case
    slices = {name: np.load(run / folder / "previews" / f"{middle}.npz") for name, (folder, _) in EVALUATED.items()}
    for axis, (name, content) in zip(axes, slices.items(), strict=False):
        doubt = 1 - content["confidence"].T / 100
        drawn = axis.imshow(doubt, cmap="magma", origin="lower", vmin=0, vmax=0.5)
        axis.set_title(f"doubt, {name}")
        axis.axis("off")
    figure.colorbar(drawn, ax=axes[:2], fraction=0.05, label="1 − confidence")
    axis = axes[2]
    for name, (folder, colour) in EVALUATED.items():
        evaluated = read_evaluated(run / folder)
        subjects = [case.subject for case in evaluated.cases]
        curve = bootstrap_reliability(list(evaluated.histograms(REGION)), num_bins=15, groups=subjects, samples=500)
        known = curve.count > 0
        x, y, low, high = (
            part[known].numpy() for part in (curve.confidence, curve.accuracy, curve.accuracy_low, curve.accuracy_high)
        )
        error = float(np.nanmean(evaluated.values(f"ece_{REGION}_15bins")))
        axis.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
        axis.plot(x, y, "o-", ms=3.5, color=colour, label=f"{name}, ECE {error:.3f}")
    axis.plot([0.35, 1], [0.35, 1], color="#777777", lw=1, ls="--", zorder=0)
    axis.set(title="within 2 mm of boundaries", xlabel="confidence", ylabel="share of right voxels", xlim=(0.35, 1.01))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="upper left")
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=100)
    print(f"{middle}: DSC {np.median(dice):.3f}, {len(dice)} cases of {len(set(subjects))} subjects")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
