"""Evaluated runs shared by the report's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_runs import write_run

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
