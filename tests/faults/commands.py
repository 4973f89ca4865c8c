"""The commands that are killed: what each needs, how it is called, and what its result is."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

REPOSITORY = Path(__file__).parents[2]
BUNDLE = REPOSITORY / "bundles" / "msd_hippocampus_segmentation_3d"
SETTINGS = {"networks#unet#features": "[4,4,4,8,8,4]", "patch_size": "[32,32,16]"}
SMALL = [part for name, value in SETTINGS.items() for part in (f"--{name}", value)]
SET = [f"{name}={value}" for name, value in SETTINGS.items()]
"""What makes a training short, for the bundle's own commands and for the package's."""
PREPARED = {
    "_target_": "monai_calib.datasets.cache.PreparedDataset",
    "data": "$load_datalist(@dataset_dir, 'training', @prepare_data)",
    "transform": "@train#preprocessing",
}
"""The training data of the bundles that keep prepared cases on disk."""
PASSING = {"seconds", "train_seconds", "created", "command", "written"}
"""Keys of JSON files that differ between equal results."""


@dataclass(frozen=True)
class Command:
    """A command under test.

    Attributes:
        name: as the tally calls it.
        prepare: fills a new folder with what the command needs.
        call: the command line for that folder; the second argument says whether an earlier call was killed.
        result: what must be equal after a kill and a second call: a digest for each part.
        refuses_again: a second call is refused where the result is there, as after a kill at the very end.
    """

    name: str
    prepare: Callable[[Path], None]
    call: Callable[[Path, bool], list[str]]
    result: Callable[[Path], Mapping[str, str]]
    refuses_again: bool = False


def bundle_call(workflow: str, folder: Path, *settings: str) -> list[str]:
    """``python -m monai.bundle run`` of the hippocampus bundle on ``folder/data`` into ``folder/run``."""
    files = {"train": ["train"], "evaluate": ["train", "evaluate"], "calibrate": ["train", "calibrate"]}[workflow]
    names = [f"{BUNDLE}/configs/{name}.json" for name in files]
    return [
        *(sys.executable, "-m", "monai.bundle", "run", "--config_file", str(names), "--bundle_root", str(BUNDLE)),
        *("--dataset_dir", str(folder / "data"), "--run_dir", str(folder / "run"), *SMALL, *settings),
    ]


def commands(shared: Path) -> list[Command]:
    """All commands; ``shared`` holds a small data set and a trained run, made once by :func:`make_shared`."""

    def with_data(folder: Path) -> None:
        shutil.copytree(shared / "data", folder / "data")

    def with_run(folder: Path) -> None:
        with_data(folder)
        shutil.copytree(shared / "run", folder / "run")

    def with_evaluation(folder: Path) -> None:
        shutil.copytree(shared / "evaluated", folder / "run")

    def with_download(folder: Path) -> None:
        shutil.copytree(shared / "download", folder / "download")

    def with_pictures(folder: Path) -> None:
        from own_data import picture_folders

        picture_folders(folder, 200)

    def with_maps(folder: Path) -> None:
        from stored_maps import write_data

        write_data(folder, 40)

    def with_measured(folder: Path) -> None:
        from stored_maps import case_name

        with_maps(folder)
        quiet([*package, "measure", str(folder / "maps"), str(folder / "labels"), str(folder / "measured")])
        (folder / "list.txt").write_text("".join(f"{case_name(number)}\n" for number in range(10)))

    for tests in ("datasets", "predictions"):
        sys.path.insert(0, str(REPOSITORY / "tests" / tests))
    package = [sys.executable, "-m", "monai_calib"]
    return [
        Command(
            "train",
            with_data,
            lambda folder, again: bundle_call("train", folder, "--epochs", "3", *(["--resume", "True"] * again)),
            lambda folder: digests(folder / "run" / "models"),
        ),
        Command("evaluate", with_run, lambda folder, again: bundle_call("evaluate", folder), evaluation),
        Command("calibrate", with_run, lambda folder, again: bundle_call("calibrate", folder), calibration),
        Command(
            "convert",
            with_download,
            lambda folder, again: [
                *(sys.executable, str(REPOSITORY / "data_scripts" / "msd_hippocampus.py")),
                *(str(folder / "download"), str(folder / "out")),
            ],
            lambda folder: digests(folder / "out"),
            refuses_again=True,
        ),
        Command(
            "phantom",
            lambda folder: None,
            lambda folder, again: [
                *(*package, "phantom", str(folder / "out"), "--cases", "30", "--shape", "24", "24", "24")
            ],
            lambda folder: digests(folder / "out"),
            refuses_again=True,
        ),
        Command(
            "report",
            with_evaluation,
            lambda folder, again: [*package, "report", str(folder / "run"), "--output", str(folder / "page.html")],
            lambda folder: {"whole": str((folder / "page.html").read_text().rstrip().endswith("</html>"))},
        ),
        Command(
            "benchmark",
            with_data,
            lambda folder, again: [
                *(*package, "benchmark", "--bundle", str(BUNDLE), "--dataset_dir", str(folder / "data")),
                *("--output", str(folder / "out"), "--losses", "ce", "--seeds", "1", "--set", "epochs=2", *SET),
            ],
            lambda folder: digests(folder / "out" / "runs"),
        ),
        Command(
            "run",
            with_data,
            lambda folder, again: [
                *(*package, "run", str(folder / "data"), str(folder / "out"), "--epochs", "1"),
                *("--bundle", str(BUNDLE), "--set", *SET),
            ],
            lambda folder: digests(folder / "out" / "runs"),
        ),
        Command(
            "cache",
            with_data,
            lambda folder, again: bundle_call(
                "train",
                folder,
                *("--epochs", "1", "--train#dataset", repr({**PREPARED, "cache_dir": str(folder / "cache")})),
                *(["--resume", "True"] * again),
            ),
            lambda folder: digests(folder / "run" / "models"),
        ),
        Command(
            "prepare",
            with_pictures,
            lambda folder, again: [
                *(*package, "prepare", str(folder / "images"), str(folder / "masks"), str(folder / "out")),
                *("--labels", "a=1", "b=2"),
            ],
            lambda folder: digests(folder / "out"),
            refuses_again=True,
        ),
        Command(
            "measure",
            with_maps,
            lambda folder, again: [
                *(*package, "measure", str(folder / "maps"), str(folder / "labels"), str(folder / "out"))
            ],
            lambda folder: digests(folder / "out"),
        ),
        Command(
            "correct",
            with_measured,
            lambda folder, again: [
                *(*package, "correct", str(folder / "measured"), str(folder / "out")),
                *("--fit_on", str(folder / "list.txt"), "--method", "temperature", "--force"),
            ],
            lambda folder: digests(folder / "out"),
        ),
    ]


def make_shared(folder: Path) -> None:
    """A small data set, a download, a trained and an evaluated run: what the commands under test start from."""
    sys.path.insert(0, str(REPOSITORY / "tests" / "data_scripts"))
    from official_layouts import msd_hippocampus

    from monai_calib.phantom import write_phantom

    write_phantom(folder / "data", cases=6, shape=(18, 25, 18), spacing=(2, 2, 2))
    msd_hippocampus(folder / "official")
    shutil.move(next((folder / "official").rglob("dataset.json")).parent, folder / "download")
    quiet(bundle_call("train", folder, "--epochs", "2"))
    shutil.copytree(folder / "run", folder / "evaluated_run" / "run")
    shutil.copytree(folder / "data", folder / "evaluated_run" / "data")
    quiet(bundle_call("evaluate", folder / "evaluated_run"))
    shutil.move(folder / "evaluated_run" / "run", folder / "evaluated")


def quiet(call: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; an error shows what it printed."""
    done = subprocess.run(call, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise AssertionError(
            f"{' '.join(call)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    return done


def evaluation(folder: Path) -> Mapping[str, str]:
    """The evaluated folder, whole: its figures, histograms, previews and tables."""
    return digests(folder / "run" / "eval")


def calibration(folder: Path) -> Mapping[str, str]:
    """Corrected model, its exports and their record."""
    models = folder / "run" / "models"
    return {name: digest for name, digest in digests(models).items() if "calibrat" in name}


def digests(folder: Path) -> dict[str, str]:
    """A digest of what each file says: numbers and names, without times and without how they are packed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix == ".log" or "logs" in path.parts:
            continue
        if path.name.startswith(".") and path.suffix == ".lock":
            continue
        found[str(path.relative_to(folder))] = _digest(path)
    return found


def _digest(path: Path) -> str:
    text = hashlib.sha256()
    if path.suffix in (".ts", ".pt2", ".onnx"):
        return "there"  # exporters write other bytes each time
    if path.suffix == ".json":
        text.update(json.dumps(_lasting(json.loads(path.read_text())), sort_keys=True).encode())
    elif path.suffix in (".pt", ".ckpt"):
        _add(text, torch.load(path, weights_only=True, map_location="cpu"))
    elif path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            for name in sorted(arrays.files):
                text.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    else:
        text.update(path.read_bytes())
    return text.hexdigest()


def _lasting(value: Any) -> Any:
    """JSON without what passes: times, and digests of files that hold times."""
    if isinstance(value, dict):
        return {key: _lasting(inner) for key, inner in value.items() if key not in PASSING and "sha256" not in key}
    return [_lasting(inner) for inner in value] if isinstance(value, list) else value


def _add(text: Any, value: Any) -> None:
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            if key not in PASSING:
                text.update(str(key).encode())
                _add(text, value[key])
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _add(text, inner)
    elif isinstance(value, torch.Tensor):
        text.update(value.contiguous().numpy().tobytes())
    else:
        text.update(repr(value).encode())
