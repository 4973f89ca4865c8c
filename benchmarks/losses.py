"""Time and peak memory of every loss, forward and backward, against cross-entropy, MONAI's and the plain formula.

    python benchmarks/losses.py                       # a table on the screen
    python benchmarks/losses.py --output docs/benchmarks/losses.json --table docs/benchmarks/losses.md \
        --plot docs/benchmarks/losses.png && python benchmarks/cost_column.py
    python benchmarks/losses.py --device cuda --rounds 50 --table docs/benchmarks/losses_cuda.md

Runs are interleaved, one after another in turn, so that a machine that slows down slows all; a figure is the median
of its ratios to the cross-entropy of the same round. Memory is the peak above the logits, measured in a process of its
own by the operating system; on a GPU by PyTorch's allocator. Shapes and losses that an output file holds already and
that are not measured now stay in it, so that a long run can be cut; table and plot are of all it holds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from monai.losses import NACLLoss as MonaiNACLLoss
from torch import Tensor

from monai_calib.losses import PRESETS, build_loss, fused

SHAPES = {
    "2D 16x4x224^2": (16, 4, 224, 224),
    "2D 16x14x224^2": (16, 14, 224, 224),
    "3D 4x96^3": (1, 4, 96, 96, 96),
    "3D 14x96^3": (1, 14, 96, 96, 96),
    "3D 4x128^3": (1, 4, 128, 128, 128),
    "3D 14x128^3": (1, 14, 128, 128, 128),
}
BASELINE = "F.cross_entropy"
Step = Callable[[Tensor, Tensor], Tensor]


def _plain(name: str, **arguments: object) -> Step:
    loss = build_loss(name, **arguments)

    def step(logits: Tensor, label: Tensor) -> Tensor:
        with fused.using("plain"):
            return loss(logits, label)

    return step


def contestants(shape: tuple[int, ...], device: torch.device) -> dict[str, Step]:
    """Every loss by its name, and the peers."""
    classes, axes = shape[1], len(shape) - 2
    peer = MonaiNACLLoss(classes, axes).to(device)
    steps: dict[str, Step] = {
        BASELINE: lambda logits, label: F.cross_entropy(logits, label.squeeze(1)),
        "monai NACLLoss": lambda logits, label: peer(logits, label.squeeze(1)),
        "nacl, plain formula": _plain("nacl"),
        "mbls, plain formula": _plain("mbls"),
        "nacl k=5": build_loss("nacl", kernel_size=5),
        "nacl k=7": build_loss("nacl", kernel_size=7),
        "nacl image-guided": _image_guided(shape, device),
    }
    return steps | {name: build_loss(name).to(device) for name in PRESETS}


def _image_guided(shape: tuple[int, ...], device: torch.device) -> Step:
    loss = build_loss("nacl", kernel_ops="image_proportions_l1")
    image = torch.rand(shape[0], 1, *shape[2:], device=device)
    return lambda logits, label: loss(logits, label, image=image)


def once(step: Step, logits: Tensor, label: Tensor) -> float:
    """Seconds of one forward and backward pass."""
    start = time.perf_counter()
    value = step(logits, label)
    torch.autograd.grad(value, logits)
    if logits.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def inputs(shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Logits and a label with regions, as a segmentation has them, rather than noise."""
    torch.manual_seed(0)
    coarse = torch.rand(shape[0], 1, *(max(1, n // 16) for n in shape[2:]))
    smooth = F.interpolate(coarse, shape[2:], mode="bilinear" if len(shape) == 4 else "trilinear")
    label = (smooth * shape[1]).long().clamp(0, shape[1] - 1)
    return torch.randn(shape).to(device).requires_grad_(), label.to(device)


def times(
    shape: tuple[int, ...], names: list[str], rounds: int, device: torch.device
) -> dict[str, tuple[float, float]]:
    """Median milliseconds and median ratio to the baseline of the same round."""
    logits, label = inputs(shape, device)
    steps = {name: step for name, step in contestants(shape, device).items() if name in names or name == BASELINE}
    for step in steps.values():
        once(step, logits, label)
    seen: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            seen[name].append(once(step, logits, label))
    base = seen[BASELINE]
    return {
        name: (
            1e3 * statistics.median(values),
            statistics.median(v / b for v, b in zip(values, base, strict=True)),
        )
        for name, values in seen.items()
    }


def peak_memory(shape: tuple[int, ...], names: list[str], device: torch.device) -> dict[str, float]:
    """Peak of one pass above what was held before it, as a multiple of the logits; on the CPU in its own process."""
    if device.type == "cuda":
        return _peaks_on_cuda(shape, names, device)
    command = [sys.executable, __file__, "--peak", *names, "--shape", json.dumps(shape)]
    # glibc gives every large block back at once, so that what is freed is not taken for what was never needed
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    peaks: dict[str, float] = json.loads(done.stdout)
    return peaks


def _peaks_on_cuda(shape: tuple[int, ...], names: list[str], device: torch.device) -> dict[str, float]:
    logits, label = inputs(shape, device)
    steps = contestants(shape, device)
    peaks = {}
    for name in names:
        once(steps[name], logits, label)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        once(steps[name], logits, label)
        peaks[name] = (torch.cuda.max_memory_allocated() - before) / (logits.numel() * 4)
    return peaks


def _measure_peaks(shape: tuple[int, ...], names: list[str]) -> dict[str, float]:
    small = (1, shape[1], *[8] * (len(shape) - 2))
    device = torch.device("cpu")
    peaks = {}
    logits, label = inputs(shape, device)
    for name in names:
        once(contestants(small, device)[name], *inputs(small, device))  # compiled, libraries loaded
        step = contestants(shape, device)[name]
        # 5: forget the peak so far
        Path("/proc/self/clear_refs").write_text("5")
        before = _kilobytes("VmRSS")
        once(step, logits, label)
        peaks[name] = (_kilobytes("VmHWM") - before) * 1024 / (logits.numel() * 4)
    return peaks


def _kilobytes(field: str) -> int:
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(field))
    return int(line.split()[1])


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown: a row a loss; time and memory as multiples of cross-entropy and of the logits."""
    shapes = list(results)
    names = list(dict.fromkeys(name for rows in results.values() for name in rows))
    lines = [
        "| loss | " + " | ".join(f"{shape}: time, memory" for shape in shapes) + " |",
        "|---" * (len(shapes) + 1) + "|",
    ]
    for name in names:
        cells = []
        for shape in shapes:
            row = results[shape].get(name)
            cells.append("" if row is None else f"{row['ratio']:.2f}, {row['memory']:.2f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(results: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """Bars of the time ratios, one panel a shape."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(3.6 * len(results), 6.5), sharey=True, squeeze=False)
    for axis, (shape, rows) in zip(axes[0], results.items(), strict=True):
        names = list(rows)[::-1]
        ours = ["#0072b2" if name in PRESETS or name.startswith("nacl") else "#999999" for name in names]
        axis.barh(names, [rows[name]["ratio"] for name in names], color=ours)
        axis.axvline(1.0, color="black", linewidth=0.8)
        axis.set(title=shape, xlabel="time / F.cross_entropy", xscale="log")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--losses", nargs="*", help="names; default all")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--output", type=Path, help="JSON of all figures")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--peak", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--shape", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(json.dumps(_measure_peaks(tuple(json.loads(options.shape)), options.peak)))
        return
    results: dict[str, dict[str, dict[str, float]]] = {}
    rounds: dict[str, int] = {}
    threads = torch.get_num_threads()
    if options.output and options.output.exists():
        kept = json.loads(options.output.read_text())
        if kept["threads"] != threads:
            raise SystemExit(
                f"{options.output}: expected {threads} threads, got {kept['threads']}. Write another file."
            )
        results, rounds = kept["shapes"], kept["rounds"]
    for title in options.shapes:
        shape = SHAPES[title]
        names = options.losses or list(contestants(shape, options.device))
        measured = times(shape, names, options.rounds, options.device)
        memory = {} if options.no_memory else peak_memory(shape, list(measured), options.device)
        results[title] = results.get(title, {}) | {
            name: {
                "milliseconds": round(milliseconds, 2),
                "ratio": round(ratio, 4),
                "memory": round(memory.get(name, float("nan")), 3),
            }
            for name, (milliseconds, ratio) in measured.items()
        }
        for name, row in ((name, results[title][name]) for name in measured):
            print(
                f"{title:16} {name:22} {row['milliseconds']:8.1f} ms {row['ratio']:6.2f} {row['memory']:6.2f}",
                flush=True,
            )
        rounds[title] = options.rounds
    results = {title: results[title] for title in SHAPES if title in results}
    if options.output:
        kept = {"device": str(options.device), "threads": threads, "rounds": rounds, "shapes": results}
        options.output.write_text(json.dumps(kept, indent=1) + "\n")
    if options.table:
        options.table.write_text(table(results))
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
