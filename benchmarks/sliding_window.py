"""Which average of overlapping windows is better calibrated: of logits, or of probabilities?

    python benchmarks/sliding_window.py BUNDLE RUN_DIR --dataset_dir DATA [--roi_size 24 32 24] [--overlap 0.5]

Evaluates the trained bundle twice over its test cases, with its own network and preprocessing, and prints the figures
side by side. The windows should be smaller than the volumes, or there is no overlap to average.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from monai.handlers import CheckpointLoader, from_engine

from monai_calib.handlers import CalibrationHandler, SurfaceHandler
from monai_calib.inferers import ProbabilitySlidingWindowInferer

SHOWN = (
    "ece_foreground_15bins_macro",
    "ece_boundary2mm_15bins_macro",
    "ece_all_15bins_macro",
    "classwise_ece_union_15bins_macro",
    "nll_boundary2mm_macro",
    "brier_boundary2mm_macro",
    "hd95_mm",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder of the bundle, with configs/train.json and evaluate.json")
    parser.add_argument("run_dir", type=Path, help="folder of its run, with models/model.pt")
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--roi_size", type=int, nargs="+", default=[24, 32, 24])
    parser.add_argument("--overlap", type=float, default=0.5)
    arguments = parser.parse_args()
    checkpoint = arguments.run_dir / "models" / "model.pt"
    if not checkpoint.is_file():
        parser.error(f"no checkpoint at {checkpoint}: train the bundle with --run_dir {arguments.run_dir} first")

    results = {average: evaluate(arguments, checkpoint, average) for average in ("logits", "probabilities")}
    print(f"windows {arguments.roi_size}, overlap {arguments.overlap}")
    print(f"{'':36}{'logits':>16}{'probabilities':>16}")
    for name in SHOWN:
        print(f"{name:36}{results['logits'][name]:16.5f}{results['probabilities'][name]:16.5f}")


def evaluate(arguments: argparse.Namespace, checkpoint: Path, average: str) -> dict[str, float]:
    parser = ConfigParser()
    configs = arguments.bundle / "configs"
    parser.read_config([configs / "train.json", configs / "evaluate.json"])
    parser.update(
        {
            "bundle_root": str(arguments.bundle),
            "run_dir": str(arguments.run_dir),
            "dataset_dir": str(arguments.dataset_dir),
            "num_workers": 0,
        }
    )
    evaluator = parser.get_parsed_content("validate#evaluator")
    # The bundle's own handlers and activation would write over its results and apply a second softmax.
    bare = type(evaluator)(
        device=evaluator.state.device,
        val_data_loader=evaluator.data_loader,
        network=evaluator.network,
        inferer=ProbabilitySlidingWindowInferer(
            arguments.roi_size, average=average, overlap=arguments.overlap, mode="gaussian", sw_batch_size=4
        ),
        val_handlers=[
            CheckpointLoader(str(checkpoint), {"model": evaluator.network}, map_location=torch.device("cpu")),
            CalibrationHandler(num_classes(parser), output_transform=from_engine(["pred", "label"])),
            SurfaceHandler(num_classes(parser), output_transform=from_engine(["pred", "label"])),
        ],
    )
    bare.run()
    return bare.state.metrics


def num_classes(parser: ConfigParser) -> int:
    return len(parser.get_parsed_content("class_names"))


if __name__ == "__main__":
    main()
