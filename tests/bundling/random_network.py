"""A bundle's network with random weights, saved as a trained one is, and inference with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import monai.bundle
import torch
from bundle_runs import run_bundle, small_networks


def inference_config(bundle: Path, **settings: Any) -> monai.bundle.ConfigParser:
    """``inference.json`` of a bundle, parsed with small networks."""
    parser = monai.bundle.ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.update({"bundle_root": str(bundle), **small_networks(bundle), **settings})
    return parser


def save_random_weights(bundle: Path, sharpness: float = 1.0, calibrated: float | None = None) -> None:
    """Write ``models/model.pt`` with logits times ``sharpness``, and ``model_calibrated.pt`` with those times another.

    Normalisation gets no running statistics here, so logits are the last convolution's, whose weights are scaled.
    """
    torch.manual_seed(0)
    state = inference_config(bundle).get_parsed_content("network_def").state_dict()
    (bundle / "models").mkdir(exist_ok=True)
    for name, factor in (("model.pt", sharpness), ("model_calibrated.pt", calibrated)):
        if factor is not None:
            last = {key: factor * value for key, value in state.items() if key.startswith("final_conv")}
            torch.save({**state, **last}, bundle / "models" / name)


def infer(bundle: Path, images: Path, output: Path, **settings: Any) -> Path:
    """Run ``inference.json``; returns the folder of the predictions."""
    settings = {"dataset_dir": str(images), "output_dir": str(output), **small_networks(bundle), **settings}
    run_bundle(bundle, "inference", **settings)
    return output
