"""What ``--bfloat16 True`` saves in a training step of the 3D hippocampus bundle's network, on the CPU.

    python benchmarks/bfloat16.py [--table docs/benchmarks/bfloat16.md]

Forward, cross-entropy, backward and Adam on one batch of the bundle's size, one thread, float32 and bfloat16 in turn;
processor time, medians. It depends on the processor: with AMX bfloat16 is fast, without AVX512-BF16 it is slow.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser

from monai_calib.inferers import TrainingInferer

CONFIG = Path(__file__).parents[1] / "bundles" / "msd_hippocampus_segmentation_3d" / "configs" / "train.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = ConfigParser(ConfigParser.load_config_file(CONFIG))
    network = config.get_parsed_content("network_def")
    optimizer = torch.optim.Adam(network.parameters())
    image = torch.randn(config["batch_size"], 1, *config["patch_size"])
    label = torch.randint(0, 3, (config["batch_size"], *config["patch_size"]))
    inferers = {name: TrainingInferer(bfloat16=name == "bfloat16") for name in ("float32", "bfloat16")}
    seen: dict[str, list[float]] = {name: [] for name in inferers}
    for number in range(options.rounds + 1):
        for name, inferer in inferers.items():
            start = time.process_time()
            optimizer.zero_grad()
            F.cross_entropy(inferer(image, network), label).backward()
            optimizer.step()
            if number:  # the first round warms up
                seen[name].append(time.process_time() - start)
    medians = {name: statistics.median(values) for name, values in seen.items()}
    share = statistics.median(b / a for a, b in zip(seen["float32"], seen["bfloat16"], strict=True))
    text = "\n".join(
        [
            "| | seconds a step | of float32 |",
            "|---|---|---|",
            f"| float32 | {medians['float32']:.2f} | 1.00 |",
            f"| bfloat16 | {medians['bfloat16']:.2f} | {share:.2f} |",
        ]
    )
    print(text)
    if options.table:
        options.table.write_text(text + "\n")


if __name__ == "__main__":
    main()
