"""The round trip with commands that stand in for nnU-Net's: what they are asked, and that nothing is asked twice.

``tests/predictions/test_nnunet.py`` has nnU-Net itself.
"""

from __future__ import annotations

import csv
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

STUDIES = Path(__file__).parents[2] / "studies"
COMMANDS = ("plan_and_preprocess", "train", "predict", "ensemble")
STAND_IN = """#!{python}
import json, os, pickle, sys
from pathlib import Path

import nibabel as nib
import numpy as np

name, given = Path(sys.argv[0]).name, sys.argv[1:]
raw, prepared, results = (Path(os.environ["nnUNet_" + kind]) for kind in ("raw", "preprocessed", "results"))
(raw,) = raw.iterdir()
prepared /= raw.name
with open({asked!r}, "a") as file:
    print(json.dumps([name, *given]), file=file)


def predict(cases, labels, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        label = np.asarray(nib.load(labels / f"{{case}}.nii.gz").dataobj)
        noise = np.random.default_rng(label.sum()).gumbel(size=(2, *label.shape))
        logits = 4 * ((label == np.arange(2)[:, None, None, None]) + noise)  # over-confident
        p = np.exp(logits - logits.max(0))
        np.savez(folder / f"{{case}}.npz", probabilities=(p / p.sum(0)).astype(np.float32).transpose(0, 3, 2, 1))
        nib.save(nib.Nifti1Image(p.argmax(0).astype(np.uint8), np.eye(4)), folder / f"{{case}}.nii.gz")


if name == "nnUNetv2_plan_and_preprocess":
    prepared.mkdir(parents=True)
    plans = {{"configurations": {{"2d": {{"batch_size": 99, "patch_size": [8, 7]}}}}}}
    (prepared / "nnUNetPlans.json").write_text(json.dumps(plans))
elif name == "nnUNetv2_train":
    assert "PYTHONPATH" not in os.environ
    model = results / raw.name / f"{{given[given.index('-tr') + 1]}}__nnUNetPlans__{{given[1]}}"
    (split,) = json.loads((prepared / "splits_final.json").read_text())
    predict(split["val"], raw / "labelsTr", model / "fold_0/validation")
    dice = []
    for case in split["val"]:
        mine, truth = (np.asarray(nib.load(folder / f"{{case}}.nii.gz").dataobj) == 1 for folder in
                       (model / "fold_0/validation", raw / "labelsTr"))
        score = 2 * int((mine & truth).sum()) / int(mine.sum() + truth.sum())
        dice.append({{"prediction_file": f"{{case}}.nii.gz", "metrics": {{"1": {{"Dice": score}}}}}})
    (model / "fold_0/validation/summary.json").write_text(json.dumps({{"metric_per_case": dice}}))
    log = "This split has 4 training and 8 validation cases\\nEpoch time: 60 s"
    (model / "fold_0/training_log_1.txt").write_text(log)
    (model / "fold_0/debug.json").write_text('{{"num_iterations_per_epoch": "3"}}')
    (model / "plans.json").write_text((prepared / "nnUNetPlans.json").read_text())
elif name == "nnUNetv2_predict":
    cases = [path.name[: -len("_0000.nii.gz")] for path in Path(given[given.index("-i") + 1]).iterdir()]
    predict(cases, raw / "labelsTs", Path(given[given.index("-o") + 1]))
elif name == "nnUNetv2_ensemble":
    maps, output = Path(given[given.index("-i") + 1]), Path(given[given.index("-o") + 1])
    output.mkdir()
    for path in maps.glob("*.npz"):
        labels = np.load(path)["probabilities"].argmax(0).astype(np.uint8).transpose(2, 1, 0)
        nib.save(nib.Nifti1Image(labels, np.eye(4)), output / f"{{path.stem}}.nii.gz")
elif name == "python":
    print(json.dumps({{"nnunetv2": "0", "torch": "0"}}))
"""


def write_data(folder: Path) -> None:
    """Ten subjects of two cases each, split by subject."""
    rng = np.random.default_rng(0)
    splits: dict[str, list[dict[str, Any]]] = {"training": [], "validation": [], "test": []}
    (folder / "files").mkdir(parents=True)
    for number in range(20):
        label = np.zeros((8, 7, 6), np.uint8)
        label[2 : 5 + number % 3, 2:5, 1:5] = 1
        for kind, array in (("image", label + rng.normal(size=label.shape)), ("label", label)):
            dtype = np.float32 if kind == "image" else np.uint8
            nib.save(nib.Nifti1Image(array.astype(dtype), np.eye(4)), folder / f"files/{kind}{number}.nii.gz")
        entry = {"image": f"files/image{number}.nii.gz", "label": f"files/label{number}.nii.gz"}
        split = "training" if number < 4 else "validation" if number < 12 else "test"
        splits[split].append({**entry, "case": f"case{number}", "subject": f"s{number // 2}"})
    content = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "organ"}, **splits}
    (folder / "datalist.json").write_text(json.dumps(content))


@pytest.mark.slow
def test_a_round_trip_asks_each_step_once_and_tests_on_other_subjects(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(STUDIES))
    trip, page = importlib.import_module("nnunet_round_trip"), importlib.import_module("nnunet")
    write_data(tmp_path / "data")
    asked, commands, work = tmp_path / "asked.txt", tmp_path / "bin", tmp_path / "work"
    commands.mkdir()
    for name in (*(f"nnUNetv2_{command}" for command in COMMANDS), "python"):
        (commands / name).write_text(STAND_IN.format(python=sys.executable, asked=str(asked)))
        (commands / name).chmod(0o755)
    places = [str(tmp_path / "data"), str(work), "--nnunet", str(commands)]
    more = ["--device", "cpu", "--planned", "2d", "--batch_size", "7"]
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["nnunet_round_trip.py", *places, *more])
        trip.main()
    told = [json.loads(line) for line in asked.read_text().splitlines()]
    assert [line[0].removeprefix("nnUNetv2_") for line in told if line[0] != "python"] == [*COMMANDS, "ensemble"]
    assert told[1][1:4] == ["4", "2d_batch7", "0"]
    plans = json.loads((work / "nnUNet_preprocessed" / trip.DATASET / "nnUNetPlans.json").read_text())
    assert plans["configurations"]["2d_batch7"] == {"inherits_from": "2d", "batch_size": 7}
    with (work / "subjects.csv").open() as file:
        subject = {row["case"]: row["subject"] for row in csv.DictReader(file)}
    (split,) = json.loads((work / "nnUNet_preprocessed" / trip.DATASET / "splits_final.json").read_text())
    record = json.loads((work / "corrected_auto/correction.json").read_text())
    assert sorted(record["fit_on"]) == sorted(split["val"])
    parts = [{subject[case] for case in cases} for cases in (split["train"], split["val"], record["corrected"])]
    assert [len(part) for part in parts] == [2, 4, 4]
    assert len(set.union(*parts)) == 10
    assert (work / "nnunet.html").is_file()
    kept = page.gather(work)
    assert (kept["subjects"], kept["cases"]) == ({"fitted on": 4, "tested on": 4}, {"fitted on": 8, "tested on": 8})
    for method, of in kept["handed back"].items():
        assert (of["cases"], of["voxels that differ"]) == (8, 0)
        assert (of["voxels that moved"] > 0) == (method == "vector")
    assert (kept["nnunet"]["batch"], kept["nnunet"]["patch"], kept["nnunet"]["minutes of training"]) == (7, [8, 7], 1)
    assert kept["figures"]["`temperature`"]["nll_all"][0] < kept["figures"][page.PLAIN]["nll_all"][0]
    assert kept["dice against nnU-Net's own"] < 1e-5
    assert set(page.tables(kept)) == {"settings", "figures", "candidates", "corrections"}
