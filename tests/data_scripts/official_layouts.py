"""Tiny downloads of each data set, laid out as the official ones are, with their quirks.

Each function writes one into a folder and returns what a converter should find in it.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813  # its customary name
from PIL import Image

from monai_calib.datasets.dataset import Dataset

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass
class Official:
    """A download and the truth about it: ``cases`` maps a name to image, label (as converted) and their affine."""

    source: Path
    cases: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    image_file: Path
    label_file: Path
    write: Callable[[Path, np.ndarray], None]


def script(key: str) -> Dataset:
    return importlib.import_module(f"data_scripts.{key}").DATASET


def volume(seed: int, shape: tuple[int, ...], values: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image whose brightness follows a label that holds each of the values."""
    rng = np.random.default_rng(seed)
    along = np.indices(shape[:3]).sum(0)
    label = np.asarray(values, np.uint8)[along * len(values) // (along.max() + 1)]
    step = label.astype(np.float64) * 40
    image = (step if len(shape) == 3 else step[..., None]) + 100 + rng.integers(0, 30, size=shape)
    return image.astype(np.int16), label


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def stray(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x00\x05\x16\x07 what a Mac leaves in archives")


def writer(affine: np.ndarray) -> Callable[[Path, np.ndarray], None]:
    return lambda path, array: save(path, array, affine)


def decathlon(folder: Path, name: str, numbers: list[int], shape: tuple[int, ...], labels: int) -> Official:
    affine = np.array([[1.0, 0, 0, 5], [0, 1, 0, -7], [0, 0, 1.5, 2], [0, 0, 0, 1]])
    cases, pairs, digits = {}, [], 3 if name == "hippocampus" else 2
    for number in numbers:
        case = f"{name}_{number:0{digits}d}"
        image, label = volume(number, shape, list(range(labels)))
        save(folder / f"imagesTr/{case}.nii.gz", image, affine)
        save(folder / f"labelsTr/{case}.nii.gz", label, affine)
        stray(folder / f"imagesTr/._{case}.nii.gz")
        cases[case] = (image if image.ndim == 3 else image[..., 0], label, affine)
        pairs.append({"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"})
    save(folder / f"imagesTs/{name}_99.nii.gz", volume(0, shape, [0])[0], affine)
    (folder / "dataset.json").write_text(json.dumps({"name": name, "training": pairs, "test": []}))
    first = f"{name}_{numbers[0]:0{digits}d}.nii.gz"
    return Official(folder, cases, folder / "imagesTr" / first, folder / "labelsTr" / first, writer(affine))


def msd_hippocampus(folder: Path) -> Official:
    return decathlon(folder / "Task04_Hippocampus", "hippocampus", [1, 2, 3, 4, 6, 7, 8, 9, 11, 14], (9, 12, 8), 3)


def msd_prostate(folder: Path) -> Official:
    """Images of four axes, T2 and ADC on the last; numbers with gaps; unlabelled test images; stray files."""
    return decathlon(folder / "Task05_Prostate", "prostate", [0, 1, 2, 4, 6, 7, 10, 13], (10, 11, 5, 2), 3)


def acdc(folder: Path) -> Official:
    """Headers with two grids, the sform's of 1 mm; a film of four axes; first frames that are not 1; test patients."""
    affine = np.diag([-1.5625, -1.5625, 10.0, 1.0])
    cases = {}

    def write(path: Path, array: np.ndarray) -> None:
        image = nib.Nifti1Image(array, None)
        image.set_qform(affine, code=1)
        image.set_sform(np.diag([-1.0, -1.0, 1.0, 1.0]), code=1)
        image.header.set_zooms((1.5625, 1.5625, 10.0, 1.0)[: array.ndim])
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(image, path)

    root = folder / "ACDC" / "database"
    for number in range(1, 11):
        patient = root / f"training/patient{number:03d}"
        first = 4 if number == 3 else 1
        for frame in (first, 9 + number % 3):
            name = f"{patient.name}_frame{frame:02d}"
            image, label = volume(100 * number + frame, (9, 10, 4), [0, 1, 2, 3])
            write(patient / f"{name}.nii.gz", image)
            write(patient / f"{name}_gt.nii.gz", label)
            cases[name] = (image, label, affine)
        write(patient / f"{patient.name}_4d.nii.gz", np.zeros((9, 10, 4, 3), np.int16))
        group = ["DCM", "HCM", "MINF", "NOR", "RV"][number % 5]
        info = f"ED: {first}\nES: {9 + number % 3}\nGroup: {group}\nHeight: 180.0\nNbFrame: 30\nWeight: 80.0\n"
        (patient / "Info.cfg").write_text(info)
    (root / "training/MANDATORY_CITATION.md").write_text("cite us")
    stray(root / "training/._patient001")
    write(root / "testing/patient101/patient101_frame01.nii.gz", np.zeros((9, 10, 4), np.int16))
    name = root / "training/patient001/patient001_frame01"
    return Official(root.parent, cases, Path(f"{name}.nii.gz"), Path(f"{name}_gt.nii.gz"), write)


def promise12(folder: Path) -> Official:
    """MetaImage, oblique, in three parts, voxels beside the headers; test cases of the same names without label."""
    turn = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
    spacing, origin = np.array([0.625, 0.625, 3.6]), np.array([-80.0, -60.0, 20.0])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * spacing, origin
    affine = LPS @ affine
    cases = {}

    def write(path: Path, array: np.ndarray) -> None:
        image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(origin.tolist())
        image.SetDirection(turn.ravel().tolist())
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(path))

    root = folder / "PROMISE12"
    for number in range(6):
        part = root / f"TrainingData_Part{1 + number // 2}"
        image, label = volume(number, (11, 10, 6), [0, 1])
        write(part / f"Case{number:02d}.mhd", image)
        write(part / f"Case{number:02d}_segmentation.mhd", label.astype(np.int8))
        cases[f"Case{number:02d}"] = (image, label, affine)
        write(root / f"TestData/Case{number:02d}.mhd", image + 1)
    stray(root / "TrainingData_Part1/._Case00.mhd")
    part = root / "TrainingData_Part1"
    return Official(root, cases, part / "Case00.mhd", part / "Case00_segmentation.mhd", write)


def brats19(folder: Path, scale: int = 1) -> Official:
    """Four files an image; label 4 for enhancing tumour; the first axes run to the left and to the front; nested."""
    shape = (8 * scale, 9 * scale, 7 * scale, 4)
    affine = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
    root = folder / "nested" / "MICCAI_BraTS_2019_Data_Training"
    cases = {}
    names = [f"HGG/BraTS19_TCIA01_{i}_1" for i in range(8)] + [f"LGG/BraTS19_2013_{i}_1" for i in range(4)]
    for number, name in enumerate(names):
        image, label = volume(number, shape, [0, 1, 2, 3])
        place = root / name
        for channel, contrast in enumerate(("flair", "t1", "t1ce", "t2")):
            save(place / f"{place.name}_{contrast}.nii.gz", image[..., channel], affine)
        save(place / f"{place.name}_seg.nii.gz", np.where(label == 3, 4, label).astype(np.int16), affine)
        cases[place.name] = (image, label, affine)
    (root / "name_mapping.csv").write_text("Grade\n")
    stray(root / "HGG/.DS_Store")
    first = root / names[0] / Path(names[0]).name
    return Official(root, cases, Path(f"{first}_t2.nii.gz"), Path(f"{first}_seg.nii.gz"), writer(affine))


def kits19(folder: Path) -> Official:
    """Slices along the first axis; floats; cases without segmentation; one of another width; the repository's files."""
    affine = np.array([[0, 0, -0.9, 40.0], [0, -0.8, 0, 50.0], [-3.0, 0, 0, 60.0], [0, 0, 0, 1]])
    root = folder / "kits19"
    cases = {}
    for number in range(8):
        place = root / f"data/case_{number:05d}"
        image, label = volume(number, (5, 9, 12 if number == 6 else 8), [0, 1, 2])
        save(place / "imaging.nii.gz", image.astype(np.float64) - 100, affine)
        if number != 5:
            save(place / "segmentation.nii.gz", label.astype(np.float64), affine)
            cases[place.name] = (image.astype(np.float64) - 100, label, affine)
    (root / "data/kits.json").write_text("[]")
    (root / "starter_code").mkdir()
    stray(root / "data/case_00001/._segmentation.nii.gz")
    place = root / "data/case_00000"
    return Official(root, cases, place / "imaging.nii.gz", place / "segmentation.nii.gz", writer(affine))


def flare21(folder: Path) -> Official:
    """Images in nested folders, with a channel number in their names; what a Mac adds to an archive."""
    affine = np.diag([-0.8, -0.8, 2.5, 1.0])
    root = folder / "FLARE21"
    cases = {}
    for number in range(9):
        image, label = volume(number, (9, 8, 6), [0, 1, 2, 3, 4])
        save(root / f"TrainingImg/part{number % 2}/train_{number:03d}_0000.nii.gz", image, affine)
        save(root / f"TrainingMask/train_{number:03d}.nii.gz", label, affine)
        cases[f"train_{number:03d}"] = (image, label, affine)
    stray(root / "__MACOSX/TrainingImg/train_000_0000.nii.gz")
    stray(root / "TrainingMask/._train_000.nii.gz")
    return Official(
        root,
        cases,
        root / "TrainingImg/part0/train_000_0000.nii.gz",
        root / "TrainingMask/train_000.nii.gz",
        writer(affine),
    )


def mrbrains18(folder: Path) -> Official:
    """Float labels of eleven values, of which three classes are made; raw scans beside; subjects 7 and 070."""
    affine = np.diag([-0.958, 0.958, 3.0, 1.0])
    root = folder / "MRBrainS18"
    merged = np.array([0, 1, 1, 2, 2, 3, 3, 0, 0, 0, 0], np.uint8)
    cases = {}
    for number, subject in enumerate(("1", "4", "5", "7", "14", "070", "148")):
        image, label = volume(number, (8, 9, 6, 3), list(range(11)))
        place = root / "training" / subject
        for channel, contrast in enumerate(("reg_T1", "reg_IR", "FLAIR")):
            save(place / f"pre/{contrast}.nii.gz", image[..., channel].astype(np.float32), affine)
        save(place / "orig/reg_3DT1.nii.gz", np.zeros((4, 4, 4), np.float32), affine)
        save(place / "segm.nii.gz", label.astype(np.float32), affine)
        cases[f"mrbrains18_{subject}"] = (image.astype(np.float32), merged[label], affine)
    stray(root / "training/.DS_Store")
    place = root / "training/1"
    return Official(root, cases, place / "pre/FLAIR.nii.gz", place / "segm.nii.gz", writer(affine))


def amos22(folder: Path) -> Official:
    """CT and, above number 500, MRI; two labelled parts; float labels; unlabelled test images."""
    affine = np.diag([-0.7, 0.7, 5.0, 1.0])
    root = folder / "amos22"
    cases = {}
    for number, part in ((1, "Tr"), (4, "Tr"), (5, "Tr"), (7, "Tr"), (8, "Va"), (13, "Va"), (507, "Tr"), (508, "Va")):
        image, label = volume(number, (9, 8, 7), list(range(16)))
        name = f"amos_{number:04d}"
        save(root / f"images{part}/{name}.nii.gz", image, affine)
        save(root / f"labels{part}/{name}.nii.gz", label.astype(np.float32), affine)
        if number <= 500:
            cases[name] = (image, label, affine)
    save(root / "imagesTs/amos_0003.nii.gz", image, affine)
    (root / "dataset.json").write_text("{}")
    stray(root / "labelsTr/._amos_0001.nii.gz")
    name = "amos_0001.nii.gz"
    return Official(root, cases, root / "imagesTr" / name, root / "labelsTr" / name, writer(affine))


def busi(folder: Path) -> Official:
    """Names with blanks and brackets; PNG in grey, colour, with alpha, of 1 bit; two masks of an image; duplicates."""
    root = folder / "Dataset_BUSI_with_GT"
    cases = {}

    def write(path: Path, array: np.ndarray) -> None:
        pixels = np.squeeze(np.asarray(array, np.uint8)[:, :, :1], axis=2).T
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(pixels * np.uint8(255 if pixels.max() == 1 else 1)), str(path))

    for kind, count in (("benign", 6), ("malignant", 4), ("normal", 3)):
        for number in range(1, count + 1):
            seed = 1 if (kind, number) == ("malignant", 2) else 10 * count + number  # the same picture as benign (1)
            seed = 1 if (kind, number) == ("benign", 1) else seed
            image, label = volume(seed, (12, 9, 1), [0, 1])
            label = label * (kind != "normal")
            stem = root / kind / f"{kind} ({number})"
            write(stem.with_name(f"{stem.name}.png"), image)
            if (kind, number) == ("benign", 3):
                pixels = np.repeat(image.astype(np.uint8)[:, :, 0].T[..., None], 3, -1)
                sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), f"{stem}.png")
            if (kind, number) == ("benign", 4):
                left = label * (np.arange(12) < 5).astype(np.uint8)[:, None, None]
                write(stem.with_name(f"{stem.name}_mask.png"), left)
                write(stem.with_name(f"{stem.name}_mask_1.png"), label - left)
            elif number == 2:  # as many of the official masks, with an alpha channel
                grey = Image.fromarray(label[:, :, 0].T * np.uint8(255))
                Image.merge("LA", [grey, grey.point(lambda value: 255)]).convert("RGBA").save(f"{stem}_mask.png")
            elif number == 1:
                Image.fromarray(label[:, :, 0].T.astype(bool)).save(f"{stem}_mask.png")
            else:
                write(stem.with_name(f"{stem.name}_mask.png"), label)
            cases[f"{kind}_{number}"] = (image.astype(np.uint8), label, np.diag([1.0, -1.0, 1.0, 1.0]))
    stray(root / "benign/._benign (1).png")
    stem = root / "malignant"
    return Official(root, cases, stem / "malignant (1).png", stem / "malignant (1)_mask.png", write)


LAYOUTS: dict[str, Callable[..., Official]] = {
    layout.__name__: layout
    for layout in (acdc, promise12, msd_prostate, brats19, kits19, flare21, mrbrains18, amos22, busi, msd_hippocampus)
}


def snapshot(folder: Path) -> dict[str, Any]:
    """Names, contents and times of all files below a folder, to see that a source was left alone."""
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()
    }
