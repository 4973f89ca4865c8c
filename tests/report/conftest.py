"""Evaluated runs shared by the report's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from browsers import chromium, violations
from monai.inferers import SimpleInferer
from synthetic_runs import case, write_run

from monai_calib.posthoc import calibrate

__all__ = ["chromium", "violations"]

METHODS = {"ce": (1.0, 1.0), "dice_ce": (0.9, 0.45), "nacl": (1.1, 1.2)}


@pytest.fixture(scope="session")
def run_folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three losses with two seeds each on six cases; a third seed of CE never finds the posterior part."""
    root = tmp_path_factory.mktemp("runs")
    folders = []
    for loss, (noise, temperature) in METHODS.items():
        for seed in (1, 2, 3) if loss == "ce" else (1, 2):
            settings = {
                "bundle": "phantom_segmentation_3d",
                "loss_name": loss,
                "network_name": "unet",
                "seed": seed,
                "split": "test",
            }
            missed = 2 if seed == 3 else None
            folders.append(write_run(root / f"{loss}_{seed}", settings, range(6), noise, temperature, missed))
    return folders


class _Grey(torch.nn.Module):
    """A network of one layer, over-confident in grey values: enough to be calibrated."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.nn.Conv3d(1, 3, 1)
        with torch.no_grad():
            self.last.weight.copy_(torch.tensor([-0.1, 0.0, 0.08]).reshape(3, 1, 1, 1, 1))
            self.last.bias.copy_(torch.tensor([6.0, 0.0, -9.0]))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.last(image)


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a calibration with a temperature, and isotonic regression beside it."""
    folder = tmp_path_factory.mktemp("calibrated")
    batches = [{key: value[None] for key, value in case(number).items()} for number in range(4)]
    run = {"bundle": "phantom_segmentation_3d", "loss_name": "dice_ce", "loss_args": {}, "seed": 1}
    calibrate(
        _Grey(), batches, SimpleInferer(), num_classes=3, models_dir=folder / "models", output_dir=folder,
        method="temperature", force=True, also=["isotonic"], spacing=(1, 1, 2), run=run,
    )  # fmt: skip
    return folder
