"""Where the rendered bundles are, and how a test runs one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import monai.bundle

BUNDLES_FOLDER = Path(__file__).parents[2] / "bundles"
BUNDLES = sorted(path.parent.parent for path in BUNDLES_FOLDER.glob("*/configs/train.json"))
NETWORKS = ("unet", "attention_unet", "unetplusplus", "dynunet", "segresnet")
OVERRIDES = {
    "train": ["train"],
    "evaluate": ["train", "evaluate"],
    "calibrate": ["train", "calibrate"],
    "inference": ["inference"],
    "clinical_fit": ["clinical", "clinical_fit"],
    "clinical": ["clinical"],
}
"""Configuration files of each workflow, the first complete in itself."""


def named(name: str) -> Path:
    return BUNDLES_FOLDER / name


def dataset_of(bundle: Path) -> str:
    """Key of the bundle's data set.

    >>> dataset_of(Path("acdc_segmentation_2d"))
    'acdc'
    """
    return bundle.name.rpartition("_segmentation_")[0]


def config_files(bundle: Path, workflow: str) -> list[str]:
    return [str(bundle / "configs" / f"{name}.json") for name in OVERRIDES[workflow]]


def small_networks(bundle: Path) -> dict[str, Any]:
    """Settings that leave the networks their levels and strides, and a few filters."""
    networks = json.loads((bundle / "configs" / "train.json").read_text())["networks"]
    return {
        "networks#unet#features": [4, 4, 4, 8, 8, 4],
        "networks#unetplusplus#features": [4, 4, 4, 8, 8, 4],
        "networks#attention_unet#channels": [4, 4, 8, 8],
        "networks#dynunet#filters": [4, 4, *[8] * (len(networks["dynunet"]["filters"]) - 2)],
        "networks#segresnet#init_filters": 8,
    }


def tiny_patch(bundle: Path) -> list[int]:
    """Enough for the four halvings of a U-Net, whose deepest level needs more than one voxel to normalise."""
    return [32, 32] if bundle.name.endswith("_2d") else [32, 32, 16]


def run_bundle(bundle: Path, workflow: str, **settings: Any) -> None:
    """``python -m monai.bundle run`` in this process, and without changing the logging of the tests."""
    monai.bundle.run(
        config_file=config_files(bundle, workflow), bundle_root=str(bundle), logging_file=False, **settings
    )


def load_workflow(bundle: Path, workflow: str, **settings: Any) -> monai.bundle.ConfigWorkflow:
    loaded = monai.bundle.ConfigWorkflow(
        config_files(bundle, workflow),
        workflow_type="infer" if workflow in ("inference", "clinical", "clinical_fit") else "train",
        logging_file=False,
        **{"bundle_root": str(bundle), **settings},
    )
    loaded.initialize()
    return loaded


def whole_story(error: BaseException | None) -> str:
    """What a user reads in the traceback: the messages of the error and of all its causes."""
    return "" if error is None else f"{error}\n{whole_story(error.__cause__ or error.__context__)}"
