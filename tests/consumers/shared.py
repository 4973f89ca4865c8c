"""What all consumers are given: data, a bundle trained on it for a moment, and what it says when run directly."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
BUNDLE = REPOSITORY / "bundles" / "msd_hippocampus_segmentation_3d"
DATA = Path(os.environ.get("MONAI_CALIB_DATA", REPOSITORY.parent / "shared" / "data"))

__all__ = ["make_shared"]


def make_shared(shared: Path) -> None:
    """Fill ``shared``.

    ==================  ================================================================================
    ``data``            a data folder (datalist.json, imagesTr, labelsTr) of hippocampus volumes, or of
                        the phantom where there are no real ones
    ``bundle``          the hippocampus bundle, whole
    ``run``             a short training of it, its evaluation (``eval``) and a calibrated model
    ``images``          three images of the test split
    ``direct``          label and confidence maps of these, by ``configs/inference.json`` with ``run``'s model
    ``calibrated``      the same with the calibrated model
    ==================  ================================================================================
    """
    partial = shared.with_name(shared.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shutil.copytree(BUNDLE, partial / "bundle", ignore=shutil.ignore_patterns("models", "eval", "logs"))
    real = DATA / "Task04_Hippocampus"
    if real.is_dir():
        _call([str(REPOSITORY / "data_scripts" / "msd_hippocampus.py"), str(real), str(partial / "data")])
    else:
        _call(["-m", "monai_calib", "phantom", str(partial / "data"), "--cases", "24"])
    files = {"train": ["train"], "evaluate": ["train", "evaluate"], "calibrate": ["train", "calibrate"]}
    for configs in files.values():
        _bundle(partial, configs, "--dataset_dir", str(partial / "data"), "--epochs", "2")
    images = partial / "images"
    images.mkdir()
    for path in sorted((partial / "data" / "imagesTr").iterdir())[:3]:
        shutil.copy(path, images)
    for folder, calibrated in (("direct", "False"), ("calibrated", "True")):
        where = ["--dataset_dir", str(images), "--output_dir", str(partial / folder), "--calibrated", calibrated]
        _bundle(partial, ["inference"], *where)
    partial.rename(shared)


def _bundle(folder: Path, configs: list[str], *settings: str) -> None:
    names = [str(folder / "bundle" / "configs" / f"{name}.json") for name in configs]
    root = ["--bundle_root", str(folder / "bundle"), "--run_dir", str(folder / "run")]
    _call(["-m", "monai.bundle", "run", "--config_file", str(names), *root, *settings])


def _call(arguments: list[str]) -> None:
    subprocess.run([sys.executable, *arguments], check=True, cwd=REPOSITORY)
