"""What the tests of the handlers share: small volumes on disk, a tiny network, and a MONAI evaluator over them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet
from monai.transforms import Activationsd, AsDiscreted, Compose, CopyItemsd, LoadImaged

from monai_calib.handlers import CalibrationHandler

SHAPE = (14, 12, 10)
SPACING = (1.0, 1.0, 2.0)


def write_cases(folder: Path, count: int, empty: Sequence[int] = ()) -> list[dict[str, str]]:
    """Volumes of two boxes side by side in noise; those listed in ``empty`` hold background only."""
    items = []
    for i in range(count):
        rng = np.random.default_rng(i)
        label = np.zeros(SHAPE, np.uint8)
        if i not in empty:
            label[3 : 7 + i % 3, 3:9, 2:7] = 1
            label[7 + i % 3 : 11, 3:9, 2:7] = 2
        item = {"image": folder / f"scan_{i}.nii.gz", "label": folder / f"label_{i}.nii.gz"}
        nib.save(
            nib.Nifti1Image((label + rng.normal(0, 0.4, SHAPE)).astype(np.float32), np.diag([*SPACING, 1.0])),
            item["image"],
        )
        nib.save(nib.Nifti1Image(label, np.diag([*SPACING, 1.0])), item["label"])
        items.append({key: str(file) for key, file in item.items()})
    return items


def tiny_network() -> UNet:
    torch.manual_seed(0)
    return UNet(spatial_dims=3, in_channels=1, out_channels=3, channels=(4, 8), strides=(2,), norm="instance")


def evaluator(
    items: Sequence[Any], handlers: Sequence[Any], decollate: bool = True, sized: bool = True, **arguments: Any
) -> SupervisedEvaluator:
    """An evaluator as the bundles have it: probabilities are copied to ``prob`` before ``pred`` is argmaxed."""
    loader = DataLoader(Dataset(items, LoadImaged(["image", "label"], ensure_channel_first=True)), batch_size=1)
    postprocessing = Compose(
        [
            Activationsd("pred", softmax=True),
            CopyItemsd("pred", names="prob"),
            AsDiscreted("pred", argmax=True),
        ]
    )
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=loader if sized else (batch for batch in loader),
        network=tiny_network(),
        inferer=SlidingWindowInferer((8, 8, 8), overlap=0.25),
        postprocessing=postprocessing if decollate else None,
        decollate=decollate,
        val_handlers=list(handlers),
        **arguments,
    )


def run_plain(handler: Any, *outputs):
    """Feed ``(prediction, label)`` pairs to a handler through a bare ignite engine."""
    engine = Engine(lambda engine, batch: batch)
    handler.attach(engine)
    return engine.run(list(outputs))


def plain_handler(num_classes: int = 2, **arguments) -> CalibrationHandler:
    arguments = {"output_transform": lambda output: output, "spacing": (1.0, 1.0), **arguments}
    return CalibrationHandler(num_classes, **arguments)


def random_case(seed: int, size: int = 12, num_classes: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randn(1, num_classes, size, size, generator=generator).softmax(1)
    return prediction, torch.randint(0, num_classes, (1, 1, size, size), generator=generator)
