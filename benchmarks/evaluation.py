"""What measuring calibration adds to the evaluation of a bundle, on the CPU.

    python benchmarks/evaluation.py --dataset_dir DATA --run_dir RUN      # a trained run of the bundle
    python benchmarks/evaluation.py --table docs/benchmarks/evaluation.md ...

The bundle's evaluate.json runs as it is (sliding windows, Dice, surface distances, previews, files), in turn with and
without its CalibrationHandler, in one process and on one thread. Counted is the processor's time, which does not hold
what other programs take; the ratio is the median of the ratios of the rounds.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import monai.bundle
import torch

BUNDLE = Path(__file__).parents[1] / "bundles" / "msd_hippocampus_segmentation_3d"
HANDLER = "monai_calib.handlers.CalibrationHandler"


def evaluator(data: Path, run: Path, split: str, with_handler: bool) -> monai.bundle.ConfigWorkflow:
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
    for handler in workflow.parser.config["validate"]["handlers"]:
        if handler["_target_"] == HANDLER:
            handler["_disabled_"] = not with_handler
    workflow.initialize()
    return workflow


def seconds(data: Path, run: Path, split: str, with_handler: bool) -> tuple[float, int]:
    """Processor's seconds of one evaluation, and its number of cases."""
    workflow = evaluator(data, run, split, with_handler)
    start = time.process_time()
    workflow.run()
    return time.process_time() - start, workflow.evaluator.state.epoch_length


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
        seconds(options.dataset_dir, run, options.split, True)  # compiled, files read once
        seen = []
        for number in range(options.rounds):
            (without, cases), (with_it, _) = (
                seconds(options.dataset_dir, run, options.split, with_handler) for with_handler in (False, True)
            )
            seen.append((without / cases, with_it / cases))
            print(
                f"round {number + 1}: {1e3 * without / cases:.0f} ms a case without, {1e3 * with_it / cases:.0f} with"
            )
    share = statistics.median(b / a for a, b in seen) - 1
    without, with_it = (1e3 * statistics.median(column) for column in zip(*seen, strict=True))
    lines = [
        "| | ms a case |",
        "|---|---|",
        f"| evaluation without CalibrationHandler | {without:.0f} |",
        f"| with it, six regions, calibration.json written | {with_it:.0f} ({100 * share:+.1f} %) |",
    ]
    print("\n".join(lines))
    if options.table:
        options.table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
