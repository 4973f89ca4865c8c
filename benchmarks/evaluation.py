"""What measuring calibration adds to the evaluation of a bundle, on the CPU.

    python benchmarks/evaluation.py --dataset_dir DATA --run_dir RUN      # a trained run of the bundle
    python benchmarks/evaluation.py --table docs/benchmarks/evaluation.md ...

The bundle's evaluate.json runs as it is (sliding windows, Dice, surface distances, previews, files), in one process and
on one thread. Counted is the processor's time of the whole and, within it, of CalibrationHandler's two calls: one a
case, one at the end. The difference of two evaluations, with and without, would drown in their scatter.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import monai.bundle
import torch

from monai_calib.handlers import CalibrationHandler

BUNDLE = Path(__file__).parents[1] / "bundles" / "msd_hippocampus_segmentation_3d"


def seconds(data: Path, run: Path, split: str) -> tuple[float, float, int]:
    """Processor's seconds of one evaluation, those of them in the handler, and the number of cases."""
    workflow = monai.bundle.ConfigWorkflow(
        [str(BUNDLE / "configs" / f"{name}.json") for name in ("train", "evaluate")],
        workflow_type="train",
        logging_file=False,
        bundle_root=str(BUNDLE),
        dataset_dir=str(data),
        run_dir=str(run),
        split=split,
        writes_log=False,
    )
    workflow.initialize()
    start = time.process_time()
    with timed(CalibrationHandler, "iteration_completed", "completed") as inside:
        workflow.run()
    return time.process_time() - start, sum(inside), workflow.evaluator.state.epoch_length


@contextmanager
def timed(kind: type, *names: str) -> Iterator[list[float]]:
    """Collects the processor's seconds of calls of methods."""
    collected: list[float] = []

    def around(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            result = method(*args, **kwargs)
            collected.append(time.process_time() - start)
            return result

        return call

    originals = {name: getattr(kind, name) for name in names}
    for name, method in originals.items():
        setattr(kind, name, around(method))
    try:
        yield collected
    finally:
        for name, method in originals.items():
            setattr(kind, name, method)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--run_dir", type=Path, required=True, help="a trained run: its models/ is read")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        shutil.copytree(options.run_dir / "models", run / "models")
        seconds(options.dataset_dir, run, options.split)  # compiled, files read once
        seen = []
        for number in range(options.rounds):
            whole, inside, cases = seconds(options.dataset_dir, run, options.split)
            seen.append(((whole - inside) / cases, inside / cases))
            print(f"round {number + 1}: {1e3 * seen[-1][0]:.0f} ms a case, and {1e3 * seen[-1][1]:.1f} in the handler")
    share = statistics.median(handler / rest for rest, handler in seen)
    rest, handler = (1e3 * statistics.median(column) for column in zip(*seen, strict=True))
    lines = [
        "| | ms a case |",
        "|---|---|",
        f"| evaluation without CalibrationHandler | {rest:.0f} |",
        f"| CalibrationHandler, six regions, calibration.json written | {handler:.1f} ({100 * share:+.1f} %) |",
    ]
    print("\n".join(lines))
    if options.table:
        options.table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
