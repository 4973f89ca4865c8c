"""Calls of what reads: each gives an exit status or a digest of its result."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from inputs import fill_cache, new_network, new_trainer


def _command(*arguments: Any) -> int:
    from monai_calib.__main__ import main

    return main([str(argument) for argument in arguments])


def prepare(folder: Path) -> Any:
    labels = ["--labels", "a=1", "b=2"]
    return _command("prepare", folder / "images", folder / "labels", folder / "out", *labels) or _of(folder / "out")


def prepare_here(folder: Path) -> Any:
    return _command("prepare", folder, folder.with_name("prepared")) or _of(folder.with_name("prepared"))


def prepare_table(suffix: str) -> Callable[[Path], Any]:
    def call(folder: Path) -> Any:
        labels = ["--labels", "a=1", "b=2"]
        return _command("prepare", folder / f"cases{suffix}", folder / "out", *labels) or _of(folder / "out")

    return call


def prepare_patients(folder: Path) -> Any:
    more = ["--labels", "a=1", "b=2", "--patients", folder / "patients.csv"]
    return _command("prepare", folder / "images", folder / "labels", folder / "out", *more) or _of(folder / "out")


def prepare_pictures(folder: Path) -> Any:
    more = ["--labels", "a=1", "b=2"]
    return _command("prepare", folder / "images", folder / "masks", folder / "out", *more) or _of(folder / "out")


def convert(folder: Path) -> Any:
    from monai_calib.datasets.command import run

    dataset = importlib.import_module("data_scripts.msd_hippocampus").DATASET
    return run(dataset, [str(folder / "download"), str(folder / "out")]) or _of(folder / "out")


def convert_archive(name: str) -> Callable[[Path], Any]:
    def call(folder: Path) -> Any:
        from monai_calib.datasets.command import run

        dataset = importlib.import_module("data_scripts.msd_hippocampus").DATASET
        return run(dataset, [str(folder / name), str(folder / "out")]) or _of(folder / "out")

    return call


def load_cased(folder: Path) -> Any:
    from monai_calib.transforms import LoadCased

    name = "b_scan.nii.gz"
    files = {"image": str(folder / "images" / name), "label": str(folder / "labels" / name)}
    return _sum(*LoadCased(("image", "label"), 3)(files).values())


def load_picture(folder: Path) -> Any:
    from monai_calib.transforms import LoadCased

    return _sum(*LoadCased("image", 3)({"image": str(folder / "images" / "0001.png")}).values())


def to_nifti(folder: Path) -> Any:
    status = _command("dicom", "to-nifti", folder / "series", folder / "out.nii.gz")
    if status:
        return status
    volume = nib.load(folder / "out.nii.gz")
    return _sum(np.asarray(volume.dataobj), volume.affine)


def to_seg(folder: Path) -> Any:
    status = _command("dicom", "to-seg", folder / "series", folder / "map.nii.gz", folder / "out.dcm")
    return status or "written"


def load_datalist(folder: Path) -> Any:
    from monai_calib.data import load_datalist

    return json.dumps([load_datalist(folder, split) for split in ("training", "validation", "test")], default=str)


def report(folder: Path) -> Any:
    return _command("report", folder / "run", "-o", folder / "page.html") or _page(folder)


def report_published(folder: Path) -> Any:
    more = ["--published", folder / "published.json"]
    return _command("report", folder / "run", "-o", folder / "page.html", *more) or _page(folder)


def _page(folder: Path) -> str:
    text = (folder / "page.html").read_text()
    if not text.rstrip().endswith("</html>"):
        raise AssertionError("half a page")
    return hashlib.sha256(text.encode()).hexdigest()


def training_settings(folder: Path) -> Any:
    from monai_calib.handlers.checkpoint import training_settings

    return json.dumps(training_settings(folder / "run" / "models"))


def corrected_model(folder: Path) -> Any:
    from monai_calib.handlers.weights import load_trained
    from monai_calib.posthoc import calibrated_model, posthoc_settings

    path = calibrated_model(folder / "models")
    network = load_trained(new_network(), path)
    return _sum(*network.state_dict().values()) + json.dumps(posthoc_settings(folder / "models"))


def load_model(folder: Path) -> Any:
    from monai_calib.handlers.weights import load_trained

    return _sum(*load_trained(new_network(), folder / "models" / "model.pt").state_dict().values())


def resume(folder: Path) -> Any:
    trainer = new_trainer(folder, True)
    trainer.logger.disabled = True
    trainer.run([0], max_epochs=4)
    return _sum(*trainer.network.state_dict().values())


def load_histograms(folder: Path) -> Any:
    from monai_calib.metrics import read_evaluated

    evaluated = read_evaluated(folder / "run" / "eval")
    found = [histogram.bins(15).count.numpy() for histogram in evaluated.histograms(evaluated.regions[0])]
    return _sum(*found, *evaluated.all_bins(15).values())


def measure(folder: Path) -> Any:
    status = _command("measure", folder / "maps", folder / "labels", folder / "out")
    return status or _json(folder / "out" / "eval" / "calibration.json")


def measure_per_class(folder: Path) -> Any:
    more = ["--classes", "background=0", "organ=1", "lesion=2"]
    status = _command("measure", folder / "maps", folder / "labels", folder / "out", *more)
    return status or _json(folder / "out" / "eval" / "calibration.json")


def measure_subjects(folder: Path) -> Any:
    more = ["--subjects", folder / "subjects.csv"]
    status = _command("measure", folder / "maps", folder / "labels", folder / "out", *more)
    return status or _json(folder / "out" / "eval" / "calibration.json")


def correct(folder: Path) -> Any:
    status = _command(
        "correct", folder / "run", folder / "out", "--fit_on", folder / "list.txt", "--method", "temperature", "--force"
    )
    return status or _json(folder / "out" / "corrected" / "eval" / "calibration.json")


def _json(path: Path) -> str:
    content = json.loads(path.read_text())
    return json.dumps([content["cases"], content["summary"]])


def _of(folder: Path) -> str:
    names = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in (".gz", ".csv"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in names)).hexdigest()


def _sum(*values: Any) -> str:
    text = hashlib.sha256()
    for value in values:
        held = io.BytesIO()
        array = np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)
        np.save(held, array, allow_pickle=False)
        text.update(held.getvalue())
    return text.hexdigest()


def cached(folder: Path) -> Any:
    return _sum(*fill_cache(folder))
