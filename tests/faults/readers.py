"""What reads the mutated files: commands and functions, each on a small good input in which one file is damaged."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import calls
import inputs

import monai_calib

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes:
        name: as the tally calls it.
        kind: of the files that are damaged, a key of the mutations.
        prepare: writes the good input into a new folder.
        files: of it, those that are damaged, as glob patterns.
        call: reads; an exit status or a digest of the result. It raises what the command line would catch.
        heals: a damaged file is no error but made again, with a warning that names it.
    """

    name: str
    kind: str
    prepare: Callable[[Path], None]
    files: Sequence[str]
    call: Callable[[Path], Any]
    heals: bool = False


def readers() -> list[Reader]:
    """All of them."""
    for folder in ("data_scripts", "dicom", "predictions", "report", "datasets"):
        if str(TESTS / folder) not in sys.path:
            sys.path.insert(0, str(TESTS / folder))
    if str(TESTS.parent) not in sys.path:
        sys.path.insert(0, str(TESTS.parent))
    return [
        Reader("prepare volumes", "NIfTI", inputs.folders, ["images/*.gz", "labels/*.gz"], calls.prepare),
        Reader("convert", "NIfTI", inputs.download, ["download/*Tr/h*.gz"], calls.convert),
        Reader("LoadCased", "NIfTI", inputs.folders, ["images/b*", "labels/b*"], calls.load_cased),
        Reader("dicom to-seg", "NIfTI", inputs.series_and_map, ["map.nii.gz"], calls.to_seg),
        Reader("dicom to-nifti", "DICOM", inputs.series, ["series/*.dcm"], calls.to_nifti),
        Reader("load_datalist", "JSON", inputs.datalist, ["datalist.json"], calls.load_datalist),
        Reader("prepare Decathlon", "JSON", inputs.decathlon, ["dataset.json"], calls.prepare_here),
        Reader("prepare nnU-Net", "JSON", inputs.nnunet, ["dataset.json"], calls.prepare_here),
        Reader("prepare table", "JSON", inputs.table(".json"), ["cases.json"], calls.prepare_table(".json")),
        Reader("report", "JSON", inputs.run, ["run/eval/calibration.json"], calls.report),
        Reader("report, training", "JSON", inputs.run, ["run/models/training.json"], calls.report),
        Reader("report --published", "JSON", inputs.run, ["published.json"], calls.report_published),
        Reader("training settings", "JSON", inputs.run, ["run/models/training.json"], calls.training_settings),
        Reader(
            "corrected model", "JSON", inputs.calibrated, ["models/calibration_parameters.json"], calls.corrected_model
        ),
        Reader("correct, measured", "JSON", inputs.measured, ["run/eval/calibration.json"], calls.correct),
        Reader("report", "NPZ", inputs.run, ["run/eval/calibration.npz"], calls.report),
        Reader("report, previews", "NPZ", inputs.run, ["run/eval/previews/*.npz"], calls.report),
        Reader("load, histograms", "NPZ", inputs.run, ["run/eval/calibration.npz"], calls.load_histograms),
        Reader("model.pt", "checkpoint", inputs.calibrated, ["models/model.pt"], calls.load_model),
        Reader(
            "corrected model", "checkpoint", inputs.calibrated, ["models/model_calibrated.pt"], calls.corrected_model
        ),
        Reader("resume", "checkpoint", inputs.checkpoint, ["checkpoint.ckpt"], calls.resume),
        Reader("cache", "checkpoint", inputs.cache, ["cache/*.pt"], calls.cached, heals=True),
        Reader(
            "convert", "archive", inputs.archive("tar"), ["download.tar.gz"], calls.convert_archive("download.tar.gz")
        ),
        Reader("convert", "archive", inputs.archive("zip"), ["download.zip"], calls.convert_archive("download.zip")),
        Reader("prepare pictures", "picture", inputs.pictures, ["images/*", "masks/*"], calls.prepare_pictures),
        Reader("LoadCased", "picture", inputs.pictures, ["images/0001.png"], calls.load_picture),
        Reader("measure .npz", "maps NPZ", inputs.maps("npz"), ["maps/*.npz"], calls.measure),
        Reader("measure .nii.gz", "maps NIfTI", inputs.maps("nifti"), ["maps/*.gz"], calls.measure),
        Reader("measure per class", "maps NIfTI", inputs.maps("suffix"), ["maps/*.gz"], calls.measure_per_class),
        Reader("measure, labels", "maps NIfTI", inputs.maps("nifti"), ["labels/*.gz"], calls.measure),
        Reader("correct, maps", "maps NPZ", inputs.measured, ["maps/*.npz"], calls.correct),
        Reader("prepare table", "table", inputs.table(".csv"), ["cases.csv"], calls.prepare_table(".csv")),
        Reader("prepare, patients", "table", inputs.patients, ["patients.csv"], calls.prepare_patients),
        Reader("correct, list", "table", inputs.measured, ["list.txt"], calls.correct),
        Reader("measure, subjects", "table", inputs.subjects, ["subjects.csv"], calls.measure_subjects),
    ]


@cache
def import_all() -> None:
    """Import whatever readers would import, each in a process of its own."""
    for module in pkgutil.walk_packages(monai_calib.__path__, "monai_calib."):
        if not module.name.endswith("__main__"):
            with suppress(ModuleNotFoundError):  # nnU-Net, Ray
                importlib.import_module(module.name)
