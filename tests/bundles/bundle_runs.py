"""Where the rendered bundles are, and how a test runs one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import monai.bundle

BUNDLES_FOLDER = Path(__file__).parents[2] / "bundles"
BUNDLES = sorted(path.parent.parent for path in BUNDLES_FOLDER.glob("*/configs/train.json"))
OVERRIDES = {
    "train": ["train"],
    "evaluate": ["train", "evaluate"],
    "calibrate": ["train", "calibrate"],
    "inference": ["inference"],
}
"""Configuration files of each workflow, the first complete in itself."""


def config_files(bundle: Path, workflow: str) -> list[str]:
    return [str(bundle / "configs" / f"{name}.json") for name in OVERRIDES[workflow]]


def run_bundle(bundle: Path, workflow: str, **settings: Any) -> None:
    """``python -m monai.bundle run`` in this process, and without changing the logging of the tests."""
    monai.bundle.run(
        config_file=config_files(bundle, workflow), bundle_root=str(bundle), logging_file=False, **settings
    )


def load_workflow(bundle: Path, workflow: str, **settings: Any) -> monai.bundle.ConfigWorkflow:
    loaded = monai.bundle.ConfigWorkflow(
        config_files(bundle, workflow),
        workflow_type="infer" if workflow == "inference" else "train",
        logging_file=False,
        bundle_root=str(bundle),
        **settings,
    )
    loaded.initialize()
    return loaded
