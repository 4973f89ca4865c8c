"""Time and peak memory of measuring calibration from logits and class numbers, against the peers.

    python benchmarks/metrics.py                       # a table on the screen
    python benchmarks/metrics.py --table docs/benchmarks/metrics.md --plot docs/benchmarks/metrics.png
    python benchmarks/metrics.py --device cuda --rounds 50 --table docs/benchmarks/metrics_cuda.md

Every contestant starts from the same logits and label. CalibrationHistogram fills all of its statistics, and the
figure of each peer includes the softmax (and one-hot encoding) it needs. Runs are interleaved, one after another in
turn, so that a machine that slows down slows all; a ratio is the median of the ratios to ``softmax + max`` of the same
round. Memory is the peak above the input, measured in a process of its own by the operating system; on a GPU by
PyTorch's allocator.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from monai.metrics import CalibrationErrorMetric
from monai.networks import one_hot
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from monai_calib.metrics import CalibrationHistogram, ece
from monai_calib.metrics.inputs import flatten_inputs
from monai_calib.metrics.sums import Sums, add_flat

SHAPES = {"4x128^3": (1, 4, 128, 128, 128), "14x96^3": (1, 14, 96, 96, 96)}
KINDS = ("regions", "noise")
BASELINE = "torch softmax + max"
OURS = "CalibrationHistogram"
Step = Callable[[Tensor, Tensor], object]


def softmax_max(logits: Tensor, label: Tensor) -> object:
    return logits.softmax(1).max(1)


def histogram(logits: Tensor, label: Tensor) -> object:
    hist = CalibrationHistogram(logits.shape[1])
    hist.update(logits, label)
    return ece(hist)


def histogram_plain(logits: Tensor, label: Tensor) -> object:
    sums = Sums.zeros(logits.shape[1] + 1, 1008)
    add_flat(sums, flatten_inputs(logits, label, None, logits.shape[1], "softmax"), 960, "softmax", True, None)
    return sums


def monai_metric(logits: Tensor, label: Tensor) -> object:
    metric = CalibrationErrorMetric(num_bins=15, include_background=True, calibration_reduction="expected")
    metric(y_pred=logits.softmax(1), y=one_hot(label, logits.shape[1]))
    return metric.aggregate()


def torchmetrics_ece(logits: Tensor, label: Tensor) -> object:
    return multiclass_calibration_error(
        logits.softmax(1).flatten(2), label.flatten(1).long(), num_classes=logits.shape[1], n_bins=15
    )


def netcal_ece(logits: Tensor, label: Tensor) -> object:
    from netcal.metrics import ECE

    rows = logits.softmax(1).movedim(1, -1).reshape(-1, logits.shape[1])
    return ECE(15).measure(rows.cpu().numpy(), label.flatten().cpu().numpy())


CONTESTANTS: dict[str, Step] = {
    BASELINE: softmax_max,
    OURS: histogram,
    f"{OURS}, plain PyTorch": histogram_plain,
    "MONAI CalibrationErrorMetric": monai_metric,
    "torchmetrics": torchmetrics_ece,
    "netcal": netcal_ece,
}


def inputs(shape: tuple[int, ...], kind: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Logits and label: confident regions with soft borders, as of a segmentation, or noise."""
    torch.manual_seed(0)
    if kind == "noise":
        label = torch.randint(0, shape[1], (shape[0], 1, *shape[2:]), dtype=torch.uint8)
        return (3 * torch.randn(shape)).to(device), label.to(device)
    coarse = torch.randn(shape[0], shape[1], *(n // 16 for n in shape[2:])) * 8
    coarse[:, 0] += 8  # background
    logits = F.interpolate(coarse, shape[2:], mode="trilinear")
    label = (logits + torch.randn(shape)).argmax(1, keepdim=True).to(torch.uint8)
    return logits.to(device), label.to(device)


def once(step: Step, logits: Tensor, label: Tensor) -> float:
    # Of one thread the processor's time, which does not count what other programs take from it.
    alone = torch.get_num_threads() == 1 and not logits.is_cuda
    clock = time.process_time if alone else time.perf_counter
    start = clock()
    step(logits, label)
    if logits.is_cuda:
        torch.cuda.synchronize()
    return clock() - start


def times(
    shape: tuple[int, ...], kind: str, names: list[str], rounds: int, device: torch.device
) -> dict[str, tuple[float, float]]:
    """Median milliseconds, and median ratio to the baseline of the same round."""
    logits, label = inputs(shape, kind, device)
    steps = {name: step for name, step in CONTESTANTS.items() if name in names or name == BASELINE}
    for step in steps.values():
        once(step, logits, label)  # compiled, libraries loaded
    seen: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            seen[name].append(once(step, logits, label))
    return {
        name: (
            1e3 * statistics.median(values),
            statistics.median(v / b for v, b in zip(values, seen[BASELINE], strict=True)),
        )
        for name, values in seen.items()
    }


def peak_memory(shape: tuple[int, ...], kind: str, name: str, device: torch.device) -> float:
    """Peak of one measurement above what was held before it, in MB."""
    if device.type == "cuda":
        return _peak_on_cuda(shape, kind, name, device)
    command = [sys.executable, __file__, "--peak", name, "--shape", json.dumps(shape), "--kind", kind]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def _peak_on_cuda(shape: tuple[int, ...], kind: str, name: str, device: torch.device) -> float:
    logits, label = inputs(shape, kind, device)
    once(CONTESTANTS[name], logits, label)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    once(CONTESTANTS[name], logits, label)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _measure_peak(shape: tuple[int, ...], kind: str, name: str) -> float:
    device = torch.device("cpu")
    once(CONTESTANTS[name], *inputs((1, shape[1], 32, 32, 32), kind, device))  # compiled, libraries loaded
    logits, label = inputs(shape, kind, device)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _kilobytes("VmRSS")
    once(CONTESTANTS[name], logits, label)
    return (_kilobytes("VmHWM") - before) / 1024


def _kilobytes(field: str) -> int:
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(field))
    return int(line.split()[1])


Results = dict[str, dict[str, dict[str, float]]]


def table(results: Results) -> str:
    """Markdown: a row a contestant; time as a multiple of softmax + max, and peak memory above the input."""
    lines = [
        "| | " + " | ".join(f"{title}: time, MB" for title in results) + " |",
        "|---" * (len(results) + 1) + "|",
    ]
    for name in CONTESTANTS:
        rows = [results[title].get(name) for title in results]
        if any(rows):
            cells = ("" if row is None else f"{row['ratio']:.2f}, {row['memory']:.0f}" for row in rows)
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(results: Results, path: Path) -> None:
    """Bars of the time ratios, one panel a shape and kind."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(3.4 * len(results), 2.8), sharey=True, squeeze=False)
    for axis, (title, rows) in zip(axes[0], results.items(), strict=True):
        names = list(rows)[::-1]
        colors = ["#0072b2" if name.startswith(OURS) else "#999999" for name in names]
        axis.barh(names, [rows[name]["ratio"] for name in names], color=colors)
        axis.axvline(1.0, color="black", linewidth=0.8)
        axis.set(title=title, xlabel="time / (softmax + max)", xscale="log")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--contestants", nargs="*", default=list(CONTESTANTS), choices=list(CONTESTANTS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--shape", help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(_measure_peak(tuple(json.loads(options.shape)), options.kind, options.peak))
        return
    torch.set_num_threads(options.threads)
    results: Results = {}
    for shape in options.shapes:
        for kind in options.kinds:
            title = f"{shape} {kind}"
            results[title] = {
                name: {
                    "milliseconds": milliseconds,
                    "ratio": ratio,
                    "memory": float("nan")
                    if options.no_memory
                    else peak_memory(SHAPES[shape], kind, name, options.device),
                }
                for name, (milliseconds, ratio) in times(
                    SHAPES[shape], kind, options.contestants, options.rounds, options.device
                ).items()
            }
            for name, row in results[title].items():
                print(
                    f"{title:16} {name:36} {row['milliseconds']:8.1f} ms {row['ratio']:6.2f} {row['memory']:6.0f} MB",
                    flush=True,
                )
    text = table(results)
    print(text)
    if options.table:
        options.table.write_text(text)
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
