"""Draws penalties.svg: what each loss adds to cross-entropy, and the pull of that term, over the logit distance.

One voxel of two classes whose label wins by ``d = l_y - l_k``; logits (d, 0). Run it from the repository's root:

    python docs/figures/penalties.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch
import torch.nn.functional as F

from monai_calib.losses import build_loss

matplotlib.use("svg")
import matplotlib.pyplot as plt

LOSSES = {
    "LS": ("ls", {"alpha": 0.1}),
    "ECP": ("ecp", {"alpha": 0.3}),
    "MbLS, margin 5": ("mbls", {"alpha": 0.1, "margin": 5.0}),
    "MbLS, squared": ("mbls", {"alpha": 0.02, "margin": 5.0, "distance_type": "l2"}),
    "NACL, L1": ("nacl", {"alpha": 0.1}),
    "NACL, L2": ("nacl", {"alpha": 0.02, "distance_type": "l2"}),
    "CALS, PHR": ("cals", {"margin": 5.0, "multiplier": 0.2, "rho": 0.5}),
}


def main() -> None:
    distance = torch.linspace(-2, 12, 281, dtype=torch.float64).requires_grad_()
    logits = torch.stack([distance, torch.zeros_like(distance)]).unsqueeze(0)
    label = torch.zeros(1, len(distance), dtype=torch.long)
    cross_entropy = F.cross_entropy(logits, label, reduction="none")

    plt.rcParams.update({"svg.hashsalt": "monai_calib", "svg.fonttype": "none", "font.size": 9})
    figure, (values, slopes) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for title, (name, arguments) in LOSSES.items():
        added = (build_loss(name, reduction="none", **arguments)(logits, label) - cross_entropy)[0]
        (slope,) = torch.autograd.grad(added.sum(), distance, retain_graph=True)
        values.plot(distance.detach(), added.detach(), label=title)
        slopes.plot(distance.detach(), slope)
    (pull,) = torch.autograd.grad(cross_entropy.sum(), distance)
    slopes.plot(distance.detach(), -pull, color="black", linestyle=":", label="pull of cross-entropy, reversed")
    values.set(xlabel="logit distance $l_y - l_k$", ylabel="term added to cross-entropy", ylim=(-0.15, 0.8))
    slopes.set(xlabel="logit distance $l_y - l_k$", ylabel="its slope", ylim=(-0.05, 0.3))
    values.legend(frameon=False)
    slopes.legend(frameon=False)
    for axis in (values, slopes):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
