"""Small data sets in nnU-Net's raw format: plain labels, an ignore label, regions, and both."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import SimpleITK

__all__ = ["SYNTHETIC", "write_real", "write_synthetic"]

CASES, SHAPE = 6, (24, 32, 32)
IGNORE = 3
SYNTHETIC = {
    "labels": {"background": 0, "organ": 1, "lesion": 2},
    "ignore": {"background": 0, "organ": 1, "lesion": 2, "ignore": IGNORE},
    "regions": {"background": 0, "whole": [1, 2], "lesion": [2]},
    "regions and ignore": {"background": 0, "whole": [1, 2], "lesion": [2], "ignore": IGNORE},
}


def write_synthetic(raw: Path, number: int, kind: str) -> str:
    """Six noisy balls with a lesion each; with an ignore label one slice in six is not annotated. Returns the name."""
    folder = _folder(raw, number, kind.title().replace(" ", ""))
    generator = np.random.default_rng(0)
    for case in range(CASES):
        centre = np.array(SHAPE) / 2 + generator.uniform(-3, 3, 3)
        distance = np.linalg.norm(np.stack(np.indices(SHAPE), -1) - centre, axis=-1)
        label = (distance < 9).astype(np.uint8) + (distance < 4)
        image = label * 2.0 + generator.normal(0, 0.5, SHAPE)
        if "ignore" in kind:
            label[case % 3 :: 3][::2] = IGNORE
        _write(folder, f"ball_{case:03d}", image.astype(np.float32), label.astype(np.uint8))
    return _describe(folder, SYNTHETIC[kind], CASES)


def write_real(raw: Path, number: int, source: Path, cases: int) -> str:
    """The first hippocampus volumes of the Decathlon's folder. Returns the data set's name."""
    folder = _folder(raw, number, "Hippocampus")
    for image in sorted((source / "imagesTr").glob("hippocampus_*.nii.gz"))[:cases]:
        shutil.copy(image, folder / "imagesTr" / image.name.replace(".nii.gz", "_0000.nii.gz"))
        shutil.copy(source / "labelsTr" / image.name, folder / "labelsTr")
    return _describe(folder, {"background": 0, "anterior": 1, "posterior": 2}, cases)


def _folder(raw: Path, number: int, name: str) -> Path:
    folder = raw / f"Dataset{number:03d}_{name}"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    return folder


def _write(folder: Path, name: str, image: np.ndarray, label: np.ndarray) -> None:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(image), folder / "imagesTr" / f"{name}_0000.nii.gz")
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(label), folder / "labelsTr" / f"{name}.nii.gz")


def _describe(folder: Path, labels: dict[str, object], cases: int) -> str:
    described = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": cases, "file_ending": ".nii.gz"}
    if any(isinstance(value, list) for value in labels.values()):
        described["regions_class_order"] = [1, 2]
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder.name
