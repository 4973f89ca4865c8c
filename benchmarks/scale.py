"""What many cases and large volumes cost: report, handler, histogram.

    python benchmarks/scale.py --table docs/benchmarks/scale.md

Seconds are the processor's, of one thread. Memory is what the operating system says of a process of its own.

- *report*: ``python -m monai_calib report`` on an evaluated folder of 10,000 cases with the protocols ``paper`` and
  ``recommended``;
- *handler*: growth of the process a case in the second half of an evaluation, in two runs: its figures, as numbers
  of Python;
- *histogram*: nanoseconds a voxel of an update from logits, from small volumes to large ones.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from monai_calib.handlers import CalibrationHandler
from monai_calib.metrics import CalibrationHistogram, EvaluatedWriter
from monai_calib.metrics.evaluation import CaseEvaluation

VOLUMES = {2: (64, 128, 256, 512), 14: (64, 128, 256)}
GRID = (48, 56, 48)


def case(classes: int, grid: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor]:
    """Probabilities ``(1, K, *grid)`` and a label of slabs ``(1, 1, *grid)``, with some noise."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.zeros(1, 1, *grid)
    for k in range(1, classes):
        label[..., 5 * k - 4 : 5 * k + 1] = k
    right = torch.nn.functional.one_hot(label[0, 0].long(), classes).movedim(-1, 0)
    return (2 * torch.randn(classes, *grid, generator=generator) + 4 * right).softmax(0)[None], label


def report(cases: int) -> tuple[float, float]:
    """Seconds and MB of a report on so many cases."""
    with tempfile.TemporaryDirectory() as folder:
        evaluation = CaseEvaluation(3, ["paper", "recommended"])
        measured = []
        for seed in range(7):
            probability, label = case(3, (40, 40, 40), seed)
            measured.append(evaluation.measure(probability[0], label[0], (1.0, 1.0, 1.0)))
        writer = EvaluatedWriter(Path(folder, "run", "eval"), evaluation.classes, evaluation.protocols)
        for i in range(cases):
            values, histograms = measured[i % len(measured)]
            writer.add(f"case_{i:05d}", values, histograms, subject=f"subject_{i // 2:05d}", spacing=(1.0, 1.0, 1.0))
        writer.close({})
        call = [sys.executable, "-m", "monai_calib", "report", f"{folder}/run", "--output", f"{folder}/report.html"]
        started = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime - started.ru_utime - started.ru_stime, ended.ru_maxrss / 1e3


def handler(classes: int, cases: int) -> float:
    """Growth of the process in kB a case while an evaluation runs."""
    made = [case(classes, GRID, seed) for seed in range(3)]
    held: list[float] = []
    evaluator = Engine(lambda engine, batch: batch)

    @evaluator.on(Events.ITERATION_COMPLETED)
    def weigh(engine: Engine) -> None:
        if engine.state.iteration in (cases // 2, cases):
            gc.collect()
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # as the writer does every few cases
            held.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e3)

    def data() -> Iterator[tuple[Tensor, Tensor]]:
        return (made[i % len(made)] for i in range(cases))

    with tempfile.TemporaryDirectory() as folder:
        CalibrationHandler(classes, output_transform=lambda output: output, output_dir=folder).attach(evaluator)
        evaluator.run(data(), epoch_length=cases)
    return (held[1] - held[0]) / (cases - cases // 2)


def histogram(classes: int, size: int, rounds: int = 3) -> float:
    """Nanoseconds a voxel of one update from logits."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, classes, *(size // 16,) * 3, generator=generator) * 8
    logits = torch.nn.functional.interpolate(coarse, (size,) * 3, mode="nearest")
    label = logits.argmax(1, keepdim=True).to(torch.uint8)
    seconds = []
    for _ in range(rounds + 1):  # the first compiles
        started = time.process_time()
        CalibrationHistogram(classes).update(logits, label)
        seconds.append(time.process_time() - started)
    return 1e9 * statistics.median(seconds[1:]) / label.numel()


def main() -> None:
    parser = argparse.ArgumentParser(description="What many cases and large volumes cost.")
    parser.add_argument("--cases", type=int, default=10_000, help="of the report (default: %(default)s)")
    parser.add_argument("--table", type=Path, help="write the table to this file")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.part:
        name, *numbers = json.loads(arguments.part)
        print(globals()[name](*numbers))
        return

    def alone(*part: object) -> float:
        call = [sys.executable, __file__, "--part", json.dumps(part)]
        return float(subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()[-1])

    seconds, megabytes = report(arguments.cases)
    lines = [
        "# Many cases, large volumes",
        "",
        "Written by `benchmarks/scale.py`, on one thread.",
        "",
        "| what | |",
        "|---|---|",
    ]
    lines += [f"| report of {arguments.cases:,} cases, 3 classes | {seconds:.0f} s, {megabytes:.0f} MB |"]
    for classes, cases in ((3, 2400), (9, 1200)):
        found = sorted(alone("handler", classes, cases) for _ in range(2))
        lines.append(
            f"| handler, a case, {classes} classes, least and most of two runs | {found[0]:.0f}, {found[-1]:.0f} kB |"
        )
    for classes, sizes in VOLUMES.items():
        costs = " / ".join(f"{alone('histogram', classes, size):.1f}" for size in sizes)
        lines.append(
            f"| histogram, {classes} classes, {' / '.join(f'{size}³' for size in sizes)} | {costs} ns a voxel |"
        )
    print("\n".join(lines))
    if arguments.table:
        arguments.table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
