"""Small labelled volumes and the maps of an over-confident network, in every format."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

CLASSES = ["background", "organ", "lesion"]
SHAPE = (12, 9, 7)
AFFINE = np.array([[-1.0, 0, 0, 5], [0, 1.0, 0, -3], [0, 0, 2.0, 8], [0, 0, 0, 1]])
SPACING = (1.0, 1.0, 2.0)
FORMATS = ("npz", "nifti", "itk", "suffix", "folders")


def volume(number: int, shape: tuple[int, int, int] = SHAPE) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Logits ``(3, x, y, z)`` and a label drawn from the softmax of half of them: the best temperature is 2."""
    rng = np.random.default_rng(number)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    organ = 4 - 9 * np.sqrt((x + 0.2) ** 2 + y**2 + z**2)
    lesion = 3 - 12 * np.sqrt((x - 0.4) ** 2 + (y - 0.1) ** 2 + z**2)
    logits = 2 * np.stack([np.zeros(shape), organ, lesion]) + rng.normal(0, 0.5, (3, *shape))
    noisy = logits / 2 + rng.gumbel(size=logits.shape)
    return logits.astype(np.float32), noisy.argmax(0).astype(np.uint8)


def softmax(logits: NDArray[Any]) -> NDArray[np.float32]:
    shifted = np.exp(logits - logits.max(0))
    return (shifted / shifted.sum(0)).astype(np.float32)


def case_name(number: int) -> str:
    return f"patient{number // 2:02d}_scan{number}"


def write_label(folder: Path, number: int, label: NDArray[np.uint8]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(label, AFFINE), folder / f"{case_name(number)}.nii.gz")


def properties() -> dict[str, Any]:
    """As nnU-Net's reader with SimpleITK writes them: z, y, x; left, posterior, superior."""
    return {
        "sitk_stuff": {
            "spacing": SPACING,
            "origin": (-5.0, 3.0, 8.0),
            "direction": (1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0),
        },
        "spacing": np.array(SPACING[::-1]),
        "shape_before_cropping": SHAPE[::-1],
        "bbox_used_for_cropping": [[0, n] for n in SHAPE[::-1]],
        "unheard_of": {"a": [1, 2.5, None, True], "b": {3}},
    }


def write_map(folder: Path, number: int, values: NDArray[Any], kind: str = "npz", dtype: Any = np.float32) -> None:
    """Write ``(K, x, y, z)`` in one of :data:`FORMATS`."""
    folder.mkdir(parents=True, exist_ok=True)
    case, values = case_name(number), values.astype(dtype)
    if kind == "npz":
        np.savez_compressed(folder / f"{case}.npz", probabilities=values.transpose(0, 3, 2, 1))
        (folder / f"{case}.pkl").write_bytes(pickle.dumps(properties()))
        segmentation = nib.Nifti1Image(values.argmax(0).astype(np.uint8), AFFINE)
        nib.save(segmentation, folder / f"{case}.nii.gz")
    elif kind in ("nifti", "itk"):
        last = values.transpose(1, 2, 3, 0)
        nib.save(nib.Nifti1Image(last if kind == "nifti" else last[:, :, :, None], AFFINE), folder / f"{case}.nii.gz")
    for k, name in enumerate(CLASSES if kind in ("suffix", "folders") else ()):
        path = folder / f"{case}_{name}.nii.gz" if kind == "suffix" else folder / name / f"{case}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(values[k], AFFINE), path)


def write_data(root: Path, count: int = 4, kind: str = "npz", dtype: Any = np.float32, logits: bool = False) -> None:
    """``root/maps`` and ``root/labels``."""
    for number in range(count):
        given, label = volume(number)
        write_label(root / "labels", number, label)
        write_map(root / "maps", number, given if logits else softmax(given), kind, dtype)


def read_map(folder: Path, number: int, kind: str) -> NDArray[Any]:
    """What :func:`write_map` wrote, by plain NumPy and nibabel."""
    case = case_name(number)
    if kind == "npz":
        with np.load(folder / f"{case}.npz") as file:
            return np.asarray(file["probabilities"]).transpose(0, 3, 2, 1)
    if kind in ("nifti", "itk"):
        array = np.asarray(nib.nifti1.load(folder / f"{case}.nii.gz").dataobj)
        return array.reshape(*SHAPE, 3).transpose(3, 0, 1, 2)
    paths = [
        folder / f"{case}_{name}.nii.gz" if kind == "suffix" else folder / name / f"{case}.nii.gz" for name in CLASSES
    ]
    return np.stack([np.asarray(nib.nifti1.load(path).dataobj) for path in paths])
