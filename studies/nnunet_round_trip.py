"""Train an nnU-Net, let it predict, measure and correct its probabilities, and hand the corrected ones back to it.

    python data_scripts/msd_hippocampus.py Task04_Hippocampus data/hippocampus
    python -m venv NNUNET && NNUNET/bin/pip install nnunetv2
    python studies/nnunet_round_trip.py data/hippocampus WORK --nnunet NNUNET/bin --device cpu

Every step is a command that a user types, printed as it is run; one that has ended is not run again, one that was
stopped goes on. Delete a folder below WORK to have its step repeated. nnU-Net trains on the training subjects of the
datalist, its own validation (the validation subjects) is what the corrections are fitted on, and the test subjects,
which neither has seen, are measured before and after. ``python studies/nnunet.py WORK`` makes the page of it.

``--trainer nnUNetTrainer`` trains as nnU-Net does by default, 1000 epochs; without it a trainer of a few short epochs
is written to ``WORK/trainers``, where nnU-Net looks for it by ``nnUNet_extTrainer`` (tried with 2.8.1).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_calib.datasets.datalist import load_datalist, read_datalist
from monai_calib.files import read_json, write_json

DATASET = "Dataset004_Hippocampus"
FOLD = "0"
METHODS = ("auto", "temperature", "boundary_temperature", "vector", "isotonic")
"""Corrections: the chosen one, and its candidates by name, whatever they make worse."""
HANDED_BACK = ("boundary_temperature", "vector")
"""Whose maps nnU-Net is given: labels stay with the one, and move with the other."""
SHORT = "nnUNetTrainerShort"
SHORT_TRAINER = '''\
"""A trainer of few, short epochs that keeps to the threads it is given."""

import os

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class {name}(nnUNetTrainer):
    # nnU-Net keeps the arguments by their names: they must be spelled out.
    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = {epochs}, {iterations}, 5
        self.save_every = 1
        if "OMP_NUM_THREADS" in os.environ:  # nnU-Net takes all cores on the CPU
            torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
'''
VERSIONS = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in ('nnunetv2', 'torch')}))"


@dataclass(frozen=True)
class RoundTrip:
    """Places and settings of one round trip.

    Args:
        data: folder with a ``datalist.json`` of images of one channel.
        work: folder for everything that is written.
        nnunet: the folder of nnU-Net's commands.
        device: ``"cuda"``, ``"cpu"`` or ``"mps"``, for nnU-Net.
        trainer: name of nnU-Net's trainer.
        epochs, iterations: of the short trainer.
        planned: the configuration that nnU-Net plans, ``"3d_fullres"`` or ``"2d"``.
        batch_size: in place of the planned one.
    """

    data: Path
    work: Path
    nnunet: Path
    device: str
    trainer: str
    epochs: int
    iterations: int
    planned: str
    batch_size: int | None

    @property
    def raw(self) -> Path:
        return self.work / "nnUNet_raw" / DATASET

    @property
    def preprocessed(self) -> Path:
        return self.work / "nnUNet_preprocessed" / DATASET

    @property
    def configuration(self) -> str:
        return self.planned if self.batch_size is None else f"{self.planned}_batch{self.batch_size}"

    @property
    def fold(self) -> Path:
        model = f"{self.trainer}__nnUNetPlans__{self.configuration}"
        return self.work / "nnUNet_results" / DATASET / model / f"fold_{FOLD}"

    @property
    def subjects(self) -> Path:
        return self.work / "subjects.csv"

    def cases(self, split: str) -> list[dict[str, Any]]:
        """Cases of a split of the datalist."""
        return load_datalist(self.data, split)

    def environment(self, command: str) -> dict[str, str]:
        """What one of nnU-Net's commands reads its places from; nothing of ours is on its path."""
        given = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        for name in ("raw", "preprocessed", "results"):
            given[f"nnUNet_{name}"] = str(self.work.resolve() / f"nnUNet_{name}")
        given["nnUNet_extTrainer"] = str(self.work.resolve() / "trainers")
        if self.device == "cpu":  # one process, nothing compiled
            given |= {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f", "nnUNet_def_n_proc": "1"}
            if command == "nnUNetv2_train":  # augmentation within it; planning refuses 0
                given["nnUNet_n_proc_DA"] = "0"
        return given

    def nnunet_command(self, name: str, *arguments: object) -> None:
        """Run one of nnU-Net's commands."""
        run([self.nnunet / name, *arguments], self.environment(name))


def write_raw(trip: RoundTrip) -> None:
    """Write the datalist as nnU-Net's raw data set: training and validation to train on, test to predict."""
    if (trip.raw / "dataset.json").is_file():
        return
    listing = read_datalist(trip.data / "datalist.json")
    known = [*trip.cases("training"), *trip.cases("validation")]
    for folder, cases in (("Tr", known), ("Ts", trip.cases("test"))):
        for kind, ending in (("image", "_0000.nii.gz"), ("label", ".nii.gz")):
            target = trip.raw / f"{kind}s{folder}"
            target.mkdir(parents=True, exist_ok=True)
            for case in cases:
                shutil.copyfile(case[kind], target / f"{case['case']}{ending}")
    with trip.subjects.open("w", newline="", encoding="utf-8") as file:
        rows = ((case["case"], case.get("subject", case["case"])) for case in [*known, *trip.cases("test")])
        csv.writer(file).writerows([("case", "subject"), *rows])
    content = {
        "channel_names": listing["modality"],
        "labels": {name: int(value) for value, name in listing["labels"].items()},
        "numTraining": len(known),
        "file_ending": ".nii.gz",
    }
    write_json(trip.raw / "dataset.json", content)


def preprocess(trip: RoundTrip) -> None:
    """Let nnU-Net plan and preprocess, and give it a split by subject; its own would tear subjects apart."""
    splits, plans = trip.preprocessed / "splits_final.json", trip.preprocessed / "nnUNetPlans.json"
    if not splits.is_file():
        what = ["-d", "4", "-c", trip.planned, "-np", "1", "-npfp", "1", "--verify_dataset_integrity"]
        trip.nnunet_command("nnUNetv2_plan_and_preprocess", *what)
        names = {split: [case["case"] for case in trip.cases(split)] for split in ("training", "validation")}
        write_json(splits, [{"train": names["training"], "val": names["validation"]}])
    content = read_json(plans)
    if trip.configuration not in content["configurations"]:
        content["configurations"][trip.configuration] = {"inherits_from": trip.planned, "batch_size": trip.batch_size}
        write_json(plans, content)


def train(trip: RoundTrip) -> None:
    """Train one fold; ``--npz`` keeps the probabilities of its validation."""
    if trip.trainer == SHORT:
        folder = trip.work / "trainers"
        folder.mkdir(parents=True, exist_ok=True)
        text = SHORT_TRAINER.format(name=SHORT, epochs=trip.epochs, iterations=trip.iterations)
        (folder / f"{SHORT}.py").write_text(text, encoding="utf-8")
    if (trip.fold / "validation" / "summary.json").is_file():
        return
    go_on = ["--c"] if any(trip.fold.glob("checkpoint_*.pth")) else []
    trip.nnunet_command(
        "nnUNetv2_train", "4", trip.configuration, FOLD, "-tr", trip.trainer, "--npz", "-device", trip.device, *go_on
    )


def predict(trip: RoundTrip) -> None:
    """Predict the test subjects with their probabilities."""
    output = trip.work / "predicted"
    if len(list(output.glob("*.npz"))) == len(trip.cases("test")):
        return
    one_process = ["-npp", "0", "-nps", "0"] if trip.device == "cpu" else []
    trip.nnunet_command(
        "nnUNetv2_predict", "-i", trip.raw / "imagesTs", "-o", output, "-d", "4", "-c", trip.configuration, "-f", FOLD,
        "-tr", trip.trainer, "--save_probabilities", "-device", trip.device, "--continue_prediction", *one_process,
    )  # fmt: skip


def correct(trip: RoundTrip) -> None:
    """Measure validation and test, fit on the one, correct the other, and write the report."""
    work = trip.work
    maps = {"validation": (trip.fold / "validation", "labelsTr"), "test": (work / "predicted", "labelsTs")}
    for name, (folder, labels) in maps.items():
        if not (work / name / "eval" / "calibration.json").is_file():
            ours("measure", folder, trip.raw / labels, work / name, "--subjects", trip.subjects, "--name", "nnU-Net")
    for method in METHODS:
        output, more = work / f"corrected_{method}", [] if method == "auto" else ["--method", method, "--force", "True"]
        if not (output / "correction.json").is_file():
            ours("correct", work / "test", output, "--fit_on", work / "validation", *more)
    if not (work / "nnunet.html").is_file():
        ours("report", work / f"corrected_{HANDED_BACK[0]}", "-o", work / "nnunet.html")


def hand_back(trip: RoundTrip) -> None:
    """Let nnU-Net read the corrected maps and make its segmentations of them; note its version."""
    for method in HANDED_BACK:
        maps, output = trip.work / f"corrected_{method}" / "maps", trip.work / f"segmented_{method}"
        if len(list(output.glob("*.nii.gz"))) < len(list(maps.glob("*.npz"))):
            trip.nnunet_command("nnUNetv2_ensemble", "-i", maps, "-o", output, "-np", "1")
    environment = trip.environment("python")
    versions = subprocess.check_output([trip.nnunet / "python", "-c", VERSIONS], text=True, env=environment)
    write_json(trip.work / "versions.json", json.loads(versions))


def ours(verb: str, *arguments: object) -> None:
    """Run one of this project's commands."""
    run([sys.executable, "-m", "monai_calib", verb, *arguments], os.environ)


def run(command: Sequence[object], environment: Mapping[str, str]) -> None:
    """Print a command, run it, and stop where it fails."""
    texts = [str(part) for part in command]
    print(f"$ {shlex.join([Path(texts[0]).name, *texts[1:]])}", flush=True)
    subprocess.run(texts, env=dict(environment), check=True)


STEPS = (write_raw, preprocess, train, predict, correct, hand_back)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("data", type=Path, help="folder with datalist.json, images of one channel")
    parser.add_argument("work", type=Path, help="folder for all that is written")
    parser.add_argument("--nnunet", type=Path, required=True, help="bin folder of the environment with nnunetv2")
    parser.add_argument("--device", default="cuda", help="for nnU-Net: cuda, cpu or mps (default: %(default)s)")
    parser.add_argument("--trainer", default=SHORT, help="nnU-Net's trainer (default: a short one, %(default)s)")
    parser.add_argument("--epochs", type=int, default=5, help="of the short trainer (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=50, help="an epoch, likewise (default: %(default)s)")
    planned = ("3d_fullres", "2d")
    parser.add_argument("--planned", default=planned[0], choices=planned, help="configuration (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, help="in place of the planned one")
    parser.add_argument("--until", choices=[step.__name__ for step in STEPS], help="last step to take")
    given = vars(parser.parse_args())
    until = given.pop("until") or STEPS[-1].__name__
    trip = RoundTrip(**given)
    for step in STEPS:
        step(trip)
        if step.__name__ == until:
            return


if __name__ == "__main__":
    main()
