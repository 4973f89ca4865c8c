"""What each loss costs in a training step of the 3D hippocampus bundle: forward, loss, backward and Adam.

    python benchmarks/training_step.py [--table docs/benchmarks/training_step.md]
    python benchmarks/training_step.py --device cuda --rounds 30 --table docs/benchmarks/training_step_cuda.md

On one thread of the CPU processor time is counted; on a GPU, in half precision as the bundle trains there, wall time.
Losses take turns; a ratio is the median of the ratios to cross-entropy in the same round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from torch import nn

from monai_calib.losses import PRESETS, build_loss

CONFIG = Path(__file__).parents[1] / "bundles" / "msd_hippocampus_segmentation_3d" / "configs" / "train.json"
BASELINE = "ce"


class Step:
    """One training step of a network of its own on one batch of the bundle's size."""

    def __init__(self, loss: nn.Module, device: torch.device) -> None:
        torch.manual_seed(0)
        config = ConfigParser(ConfigParser.load_config_file(CONFIG))
        shape = config["batch_size"], 1, *config["patch_size"]
        self.network = config.get_parsed_content("network_def").to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters())
        self.loss = loss.to(device)
        self.image = torch.randn(shape).to(device)
        self.label = _blobs(shape).to(device)
        self.device = device

    def __call__(self) -> float:
        """Seconds."""
        clock: Callable[[], float] = time.perf_counter if self.device.type == "cuda" else time.process_time
        start = clock()
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda"):
            logits = self.network(self.image)
            value = self.loss(logits, self.label)
        value.backward()
        self.optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - start


def _blobs(shape: tuple[int, ...]) -> torch.Tensor:
    """A label with regions, as a segmentation has them, rather than noise."""
    coarse = torch.rand(shape[0], 1, *(n // 8 for n in shape[2:]))
    return (nn.functional.interpolate(coarse, shape[2:], mode="trilinear") * 3).long()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps = {name: Step(build_loss(name), options.device) for name in PRESETS}
    seen: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(options.rounds + 1):
        for name, step in steps.items():
            seconds = step()
            if number:  # the first round compiles and warms up
                seen[name].append(seconds)
    lines = ["| loss | ms a step | of cross-entropy's |", "|---|---|---|"]
    for name, values in seen.items():
        ratio = statistics.median(value / base for value, base in zip(values, seen[BASELINE], strict=True))
        lines.append(f"| {name} | {1e3 * statistics.median(values):.1f} | {ratio:.2f} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.table:
        options.table.write_text(text)


if __name__ == "__main__":
    main()
