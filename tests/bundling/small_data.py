"""Small data folders of one's own, written as ``prepare`` writes them; what is in them is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

SPLITS = {"training": 4, "validation": 2, "test": 2}


def write_data(
    folder: Path,
    shape: Sequence[int] = (36, 40, 20),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    classes: int = 3,
    channels: int = 1,
    splits: dict[str, int] | None = None,
    raters: int = 1,
    **described: Any,
) -> Path:
    """Cubes of rising class number in noise; each case is a subject of its own, intensities are 100 times the class."""
    (folder / "files").mkdir(parents=True)
    listed: dict[str, list[Any]] = {}
    number = 0
    ignored = described.get("ignore_index")
    for split, count in (splits or SPLITS).items():
        listed[split] = []
        for _ in range(count):
            generator = np.random.default_rng(number)
            label = cubes(shape, classes, number)
            image = (100 * label[..., None] + generator.integers(0, 50, (*shape, channels))).astype(np.uint8)
            if ignored is not None:
                label[: shape[0] // 3] = ignored
            name = f"case_{number}"
            files = [f"files/{name}_label_{rater}.nii.gz" for rater in range(raters)]
            for rater, file in enumerate(files):
                _save(folder / file, np.roll(label, rater, 0), spacing)
            _save(folder / f"files/{name}.nii.gz", image[..., 0] if channels == 1 else image, spacing)
            label_of: Any = files if raters > 1 else files[0]
            listed[split].append(
                {"image": f"files/{name}.nii.gz", "label": label_of, "case": name, "subject": f"p{number}"}
            )
            number += 1
    about = {
        "name": "cubes",
        "modality": {str(c): name for c, name in enumerate(("red", "green", "blue")[:channels])},
        "labels": {str(k): "background" if k == 0 else f"cube {k}" for k in range(classes)},
        "unit": "mm",
    }
    (folder / "datalist.json").write_text(json.dumps({**about, **described, **listed}))
    return folder


def cubes(shape: Sequence[int], classes: int, moved: int = 0) -> np.ndarray:
    label = np.zeros(shape, np.int16)
    for k in range(1, classes):
        first = [min(2 + k * n // (classes + 1), n - 1) for n in shape]
        label[tuple(slice(a, min(a + 6 + moved % 3, n)) for a, n in zip(first, shape, strict=True))] = k
    return label


def _save(path: Path, array: np.ndarray, spacing: Sequence[float]) -> None:
    nib.save(nib.Nifti1Image(array, np.diag([*spacing, 1.0])), path)
