"""What loading costs a training step, against what the network costs it: without a cache, from memory, from disk.

    python benchmarks/loading.py --dataset_dir DATA [--table docs/benchmarks/loading.md]

Runs training steps of a bundle with its own preprocessing, batch, network, loss and optimizer, on one core and in one
process, and counts the CPU time of that process: what other programs do does not enter. The three ways of loading take
turns, each a few steps long, and a figure is the median over the turns. Without ``--dataset_dir`` the phantom is
written and used.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, Dataset, PersistentDataset
from monai.utils import set_determinism

from monai_calib.phantom import write_phantom

FOLDER = Path(__file__).resolve().parents[1] / "bundles"
BUNDLES = [FOLDER / f"msd_hippocampus_segmentation_{dims}d" for dims in (3, 2)]
NO_CACHE = "no cache"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--bundles", type=Path, nargs="+", default=BUNDLES, help="default: the hippocampus in 3D and 2D"
    )
    parser.add_argument("--dataset_dir", type=Path, help="folder with datalist.json; default: the phantom")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4, help="steps of each turn")
    parser.add_argument("--table", type=Path, help="file to write the table to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    set_determinism(seed=0)
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.dataset_dir or _phantom(Path(folder) / "phantom")
        text = "\n\n".join(
            measure(bundle, data, Path(folder) / bundle.name, arguments.turns, arguments.steps)
            for bundle in arguments.bundles
        )
    print(text)
    if arguments.table:
        partial = arguments.table.with_suffix(".partial")
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, arguments.table)


def _phantom(folder: Path) -> Path:
    write_phantom(folder, cases=24)
    return folder


def measure(bundle: Path, data: Path, cache: Path, turns: int, steps: int) -> str:
    """The table: filling the cache, loading and network, in ms of CPU time a step."""
    config = ConfigParser()
    config.read_config(bundle / "configs" / "train.json")
    config.update({"bundle_root": str(bundle), "dataset_dir": str(data), "device": "cpu", "num_workers": 0})
    cases, preprocess = (config.get_parsed_content(f"train#{name}") for name in ("dataset#data", "preprocessing"))
    datasets, filling = {}, {}
    for name, make in {
        NO_CACHE: lambda: Dataset(cases, preprocess),
        "CacheDataset": lambda: CacheDataset(cases, preprocess, progress=False, num_workers=None),
        "PersistentDataset": lambda: _written(PersistentDataset(cases, preprocess, cache_dir=cache)),
    }.items():
        start = time.process_time()
        datasets[name] = make()
        filling[name] = time.process_time() - start
    batch_size = int(config.get_parsed_content("batch_size"))
    batches = {name: _endless(dataset, batch_size) for name, dataset in datasets.items()}
    step = Step(config)
    loading: dict[str, list[float]] = {name: [] for name in batches}
    network: list[float] = []
    for _ in range(turns):
        for name, source in batches.items():
            spent = [_timed_step(source, step) for _ in range(steps)]
            loading[name].append(statistics.median(load for load, _ in spent))
            network += [train for _, train in spent]
    of_network = statistics.median(network)
    name_of_data = json.loads((data / "datalist.json").read_text(encoding="utf-8"))["name"]
    lines = [
        f"{name_of_data}, {len(cases)} training cases, `{bundle.name}`, batch {batch_size}, one core. The network "
        f"(forward, loss, backward, optimizer) takes {1000 * of_network:.0f} ms of CPU time a step.",
        "",
        "| training data | once, s | loading a step, ms | of the step | network / loading |",
        "|---|---|---|---|---|",
    ]
    for name, values in loading.items():
        load = statistics.median(values)
        once = "–" if name == NO_CACHE else f"{filling[name]:.1f}"
        share = load / (load + of_network)
        lines.append(f"| {name} | {once} | {1000 * load:.1f} | {share:.1%} | {of_network / load:.0f} |")
    return "\n".join(lines)


def _written(dataset: PersistentDataset) -> PersistentDataset:
    """The dataset after a first pass, which writes the cache that every later one reads."""
    for index in range(len(dataset)):
        dataset[index]
    return dataset


def _endless(dataset: Dataset, batch_size: int) -> Iterator[dict[str, Any]]:
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=0, drop_last=True)
    while True:
        yield from loader


class Step:
    """A training step of the bundle: forward, loss, backward, optimizer."""

    def __init__(self, config: ConfigParser) -> None:
        self.network, self.loss, self.optimizer = (
            config.get_parsed_content(name) for name in ("network", "loss", "optimizer")
        )
        self.network.train()

    def __call__(self, batch: dict[str, Any]) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.network(batch["image"]), batch["label"]).backward()
        self.optimizer.step()


def _timed_step(source: Iterator[dict[str, Any]], step: Step) -> tuple[float, float]:
    start = time.process_time()
    batch = next(source)
    loaded = time.process_time()
    step(batch)
    return loaded - start, time.process_time() - loaded


if __name__ == "__main__":
    main()
