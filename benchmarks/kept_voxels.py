"""Memory and disk of fitting a correction on volumes too large to keep: ``python benchmarks/kept_voxels.py``.

A simulated stream of abdominal CT: 512 x 512 x 300 voxels, 14 classes, blobs with noisy borders. Printed are peak
memory beside one volume of logits, bytes on disk, seconds of the pass and of a fit of every candidate of ``auto``.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from monai_calib.posthoc import KeptCases, LogitStream, default_candidates, fit


class Volumes:
    """A loader of simulated logits as images; the network passes them on."""

    def __init__(self, cases: int, shape: tuple[int, ...], classes: int) -> None:
        self.cases, self.shape, self.classes = cases, shape, classes

    def __len__(self) -> int:
        return self.cases

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in range(self.cases):
            generator = torch.Generator().manual_seed(number)
            axes = torch.meshgrid(*(torch.linspace(-1, 1, size) for size in self.shape), indexing="ij")
            logits = torch.empty(1, self.classes, *self.shape)
            logits[0, 0] = 4.0
            for k in range(1, self.classes):
                centre = 1.2 * torch.rand(3, generator=generator) - 0.6
                radius = sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)).sqrt_()
                logits[0, k] = (0.22 - radius).mul_(40)
            label = logits[0].argmax(0)
            flips = torch.randint(0, label.numel(), (label.numel() // 200,), generator=generator)
            label.view(-1)[flips] = torch.randint(0, self.classes, flips.shape, generator=generator)
            batch = {"image": logits, "label": label[None, None].to(torch.uint8), "subject": [f"s{number}"]}
            del logits, label, axes
            yield batch
            del batch  # a loader does not keep what it has handed out


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 300))
    parser.add_argument("--classes", type=int, default=14)
    parser.add_argument("--most_gb", type=float, default=2.0)
    arguments = parser.parse_args()
    volumes = Volumes(arguments.cases, tuple(arguments.shape), arguments.classes)
    logits_gb = 4 * arguments.classes * torch.tensor(arguments.shape).prod().item() / 2**30
    for _ in volumes:  # what the simulation itself needs
        break
    alone = peak_gb()
    stream = LogitStream(nn.Identity(), volumes, spacing=(0.8, 0.8, 1.5))
    kept = KeptCases(stream, int(arguments.most_gb * 2**30))
    began = time.monotonic()
    cases = sum(1 for _ in kept)
    passed = time.monotonic() - began
    candidates = [c.build(arguments.classes) for c in default_candidates(arguments.classes) if c.method != "none"]
    began = time.monotonic()
    fit(candidates, kept)
    print(
        f"{cases} cases of {logits_gb:.2f} GB logits: peak {peak_gb():.1f} GB ({alone:.1f} GB to simulate one), "
        f"{kept.bytes / 2**30:.2f} of {arguments.most_gb:g} GB on disk, {kept.voxels[0]:,} of {kept.voxels[1]:,} "
        f"voxels, pass {passed:.0f} s, fits of {len(candidates)} candidates {time.monotonic() - began:.0f} s"
    )
    for calibrator in candidates:
        print(f"  {calibrator.method}: {calibrator.record.status}, {calibrator.in_words()[:100]}")


if __name__ == "__main__":
    main()
