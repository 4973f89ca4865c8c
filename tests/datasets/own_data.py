"""Small data sets in the layouts that people keep their own images in; what is in them is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

AFFINE = np.array([[0.5, 0, 0, 3], [0, 0.7, 0, -2], [0, 0, 2.0, 5], [0, 0, 0, 1]])


def noise(seed: int, shape: tuple[int, ...], high: int = 255) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8)


def blocks(seed: int, shape: tuple[int, ...], values: Sequence[int]) -> np.ndarray:
    """A label that holds every value, in stripes along the first axis that begin somewhere else for each seed."""
    along = (np.indices(shape)[0] + seed) * len(values) // shape[0] % len(values)
    return np.asarray(values, np.uint8)[along]


def write_volume(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def write_picture(path: Path, pixels: np.ndarray, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **more)
    return path


def write_palette(path: Path, pixels: np.ndarray) -> Path:
    """A mask whose values are indices of colours with nothing in common with them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels, mode="P")
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, *[9] * (253 * 3)])
    picture.save(path)
    return path


def picture_folders(folder: Path, count: int = 20, values: Sequence[int] = (0, 1, 2), suffix: str = ".png") -> Path:
    """Grey pictures ``images/0000.png`` with masks of class numbers ``masks/0000.png``, 12 rows by 10 columns."""
    for number in range(count):
        write_picture(folder / f"images/{number:04d}{suffix}", noise(number, (12, 10)))
        write_picture(folder / f"masks/{number:04d}.png", blocks(number, (12, 10), values))
    return folder


def nnunet(folder: Path, names: Sequence[str], channels: int = 1, ending: str = ".nii.gz", **described: Any) -> Path:
    for number, name in enumerate(names):
        for channel in range(channels):
            write_volume(folder / f"imagesTr/{name}_{channel:04d}{ending}", noise(10 * number + channel, (8, 6, 5)))
        write_volume(folder / f"labelsTr/{name}{ending}", blocks(number, (8, 6, 5), (0, 1, 2)))
    content = {
        "channel_names": {str(channel): f"contrast {channel}" for channel in range(channels)},
        "labels": {"background": 0, "left": 1, "right": 2},
        "file_ending": ending,
        "numTraining": len(names),
    }
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content | described))
    return folder


def decathlon(folder: Path, names: Sequence[str], title: str = "Mine") -> Path:
    pairs = []
    for number, name in enumerate(names):
        write_volume(folder / f"imagesTr/{name}.nii.gz", noise(number, (8, 6, 5)))
        write_volume(folder / f"labelsTr/{name}.nii.gz", blocks(number, (8, 6, 5), (0, 1, 2)))
        pairs.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
    content = {"name": title, "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "left", "2": "right"}}
    (folder / "dataset.json").write_text(json.dumps({**content, "training": pairs}))
    return folder


def entries(output: Path, listing: str = "datalist.json") -> dict[str, dict[str, Any]]:
    """Every entry of a datalist by its case, with the split it is in."""
    content = json.loads((output / listing).read_text())
    splits = ("training", "validation", "test")
    return {entry["case"]: {**entry, "split": split} for split in splits for entry in content[split]}


def subjects_of(listed: dict[str, dict[str, Any]], split: str) -> set[str]:
    return {entry["subject"] for entry in listed.values() if entry["split"] == split}


def voxels(output: Path, named: str) -> np.ndarray:
    return np.asanyarray(nib.load(output / named).dataobj)
