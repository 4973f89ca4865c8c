"""One word for the calibrated model; ensembles, mirror images and dropout by one more configuration file."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_runs import BUNDLES_FOLDER, run_bundle, whole_story

BUNDLES = [BUNDLES_FOLDER / f"msd_hippocampus_segmentation_{dims}d" for dims in (2, 3)]
SMALL = {"networks#unet#features": [4, 4, 4, 4, 4, 4], "seed": 3}


@pytest.fixture(scope="module", params=[pytest.param(BUNDLES[0], marks=pytest.mark.slow), BUNDLES[1]], ids=["2d", "3d"])
def bundle(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(scope="module")
def run(bundle: Path, phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with dropout, trained for one epoch and evaluated."""
    run = tmp_path_factory.mktemp("run")
    settings = {**SMALL, "dataset_dir": str(phantom), "run_dir": str(run)}
    run_bundle(bundle, "train", **settings, epochs=1, loss_name="ce", dropout=0.2)
    run_bundle(bundle, "evaluate", **settings)
    return run


def evaluate(bundle: Path, *files: str, **settings: Any) -> None:
    """The evaluation with further files laid over it."""
    monai.bundle.run(
        config_file=[str(bundle / "configs" / f"{name}.json") for name in ("train", "evaluate", *files)],
        bundle_root=str(bundle),
        logging_file=False,
        **SMALL,
        **{name: str(value) if isinstance(value, Path) else value for name, value in settings.items()},
    )


def calibration(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "eval" / "calibration.json").read_text())


def dice(folder: Path) -> float:
    with (folder / "eval" / "metrics.csv").open() as file:
        return next(float(row[1]) for row in csv.reader(file) if row[0] == "mean_dice")


@pytest.mark.parametrize(
    "method", ["temperature", "boundary_temperature", pytest.param("local_temperature", marks=pytest.mark.slow)]
)
def test_one_word_evaluates_and_infers_with_the_calibrated_model(
    method: str, bundle: Path, run: Path, phantom: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    data = {**SMALL, "dataset_dir": str(phantom), "run_dir": str(copy)}
    fit = {"method_args": {"epochs": 1}} if method == "local_temperature" else {}
    run_bundle(bundle, "calibrate", **data, method=method, force=True, **fit)
    run_bundle(bundle, "evaluate", **data, calibrated=True)
    before, after = calibration(copy), calibration(copy / "calibrated")
    fitted = json.loads((copy / "models" / "calibration_parameters.json").read_text())["fit"]
    told = {"posthoc", "posthoc_region", "correction"}
    assert before["run"] == {key: value for key, value in after["run"].items() if key not in told}
    assert (after["run"]["posthoc"], after["run"]["posthoc_region"]) == (method, fitted["region"])
    assert before["summary"]["nll_all_micro"] != after["summary"]["nll_all_micro"]
    assert dice(copy) == pytest.approx(dice(copy / "calibrated"), abs=0.01)  # windows may change a label, no more

    data["dataset_dir"] = str(phantom / "imagesTr")
    run_bundle(bundle, "inference", **data)
    run_bundle(bundle, "inference", **data, calibrated=True, output_dir=str(copy / "calibrated" / "predictions"))
    for path in (copy / "predictions").glob("*_confidence.nii.gz"):
        plain, calibrated = (
            np.asarray(nib.load(folder / "predictions" / path.name).dataobj) for folder in (copy, copy / "calibrated")
        )
        assert (plain != calibrated).any()


def test_an_evaluation_elsewhere_has_a_folder_and_a_name_of_its_own(
    bundle: Path, run: Path, phantom: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    evaluate(bundle, dataset_dir=phantom, run_dir=copy, site="clinic B")
    assert calibration(copy / "sites" / "clinic B")["run"] == {**calibration(copy)["run"], "site": "clinic B"}
    assert calibration(copy) == calibration(run)


@pytest.mark.slow
def test_the_words_of_the_command_line(phantom: Path, run: Path, bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")

    def command(*files: str, **settings: object) -> None:
        names = str([f"configs/{name}.json" for name in files])
        pairs = {**SMALL, "run_dir": copy, "dataset_dir": phantom, **settings}.items()
        words = [word for name, value in pairs for word in (f"--{name}", str(value))]
        python = [sys.executable, "-m", "monai.bundle", "run", "--config_file", names, *words]
        result = subprocess.run(python, cwd=bundle, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr

    command("train", "calibrate", method="boundary_temperature", force=True)
    command("train", "evaluate", calibrated=True, output_dir=tmp_path / "after" / "eval")
    command("inference", calibrated=True, dataset_dir=phantom / "imagesTr")
    assert calibration(tmp_path / "after")["run"]["posthoc"] == "boundary_temperature"
    assert len(list((copy / "predictions").glob("*_seg.nii.gz"))) == 6


@pytest.mark.parametrize(("workflow", "images"), [("evaluate", ""), ("inference", "imagesTr")])
def test_a_run_that_was_not_calibrated_says_so(
    workflow: str, images: str, bundle: Path, run: Path, phantom: Path, tmp_path: Path
) -> None:
    settings = {"dataset_dir": str(phantom / images), "run_dir": str(run), "output_dir": str(tmp_path)}
    with pytest.raises((RuntimeError, FileNotFoundError)) as caught:
        run_bundle(bundle, workflow, **SMALL, **settings, calibrated=True)
    assert "model_calibrated.pt" in whole_story(caught.value)


def test_flips_are_averaged_in_the_evaluation(bundle: Path, run: Path, phantom: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    evaluate(bundle, "flips", dataset_dir=phantom, run_dir=copy, flip_axes=[0])
    plain, flipped = calibration(copy), calibration(copy / "flips")
    assert flipped["run"] == {**plain["run"], "inference": "flips along 0"}
    assert flipped["summary"]["nll_all_micro"] != plain["summary"]["nll_all_micro"]
    images = {**SMALL, "dataset_dir": str(phantom / "imagesTr"), "run_dir": str(copy)}
    averaged = {"_target_": "monai_calib.inferers.FlipInferer", "axes": [0], "inferer": "@inferer"}
    run_bundle(bundle, "inference", **images)
    run_bundle(bundle, "inference", **images, **{"evaluator#inferer": averaged}, output_dir=str(copy / "flips"))
    for path in (copy / "predictions").glob("*_confidence.nii.gz"):
        assert (nib.load(path).get_fdata() != nib.load(copy / "flips" / path.name).get_fdata()).any()


def test_dropout_is_averaged_at_the_rate_of_the_training(
    bundle: Path, run: Path, phantom: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    assert json.loads((copy / "models" / "training.json").read_text())["settings"]["dropout"] == 0.2
    evaluate(bundle, "mc_dropout", dataset_dir=phantom, run_dir=copy, samples=2)
    plain, dropped = calibration(copy), calibration(copy / "mc_dropout")
    assert dropped["run"] == {**plain["run"], "inference": "dropout, mean of 2"}
    assert dropped["summary"]["nll_all_micro"] != plain["summary"]["nll_all_micro"]


def test_an_ensemble_of_equal_members_is_the_member_and_of_others_is_not(
    bundle: Path, run: Path, phantom: Path, tmp_path: Path
) -> None:
    for seed in range(2):
        shutil.copytree(run, tmp_path / "same" / f"seed_{seed}")
        shutil.copytree(run, tmp_path / "others" / f"seed_{seed}")
    weights = tmp_path / "others" / "seed_1" / "models" / "model.pt"
    state = torch.load(weights, weights_only=True)
    torch.save({name: 1.2 * value for name, value in state.items()}, weights)
    for name in ("same", "others"):
        evaluate(bundle, "ensemble", dataset_dir=phantom, run_dir=tmp_path / name)
    plain, same, others = (calibration(folder) for folder in (run, tmp_path / "same", tmp_path / "others"))
    assert same["run"] == {**plain["run"], "inference": "ensemble of 2", "seed": "3+3"}
    assert same["summary"]["nll_all_micro"] == pytest.approx(plain["summary"]["nll_all_micro"], rel=1e-4)
    assert others["summary"]["nll_all_micro"] != pytest.approx(plain["summary"]["nll_all_micro"], rel=1e-4)


@pytest.mark.parametrize(
    ("average", "settings"), [("flips", {"flip_axes": [0]}), ("mc_dropout", {"samples": 2}), ("ensemble", {})]
)
def test_an_average_gets_one_correction_and_one_file(
    average: str, settings: dict[str, Any], bundle: Path, run: Path, phantom: Path, tmp_path: Path
) -> None:
    """Its mean probability is corrected, and evaluate.json reads the file like any calibrated model."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy / "seed_3" if average == "ensemble" else copy)
    if average == "ensemble":
        shutil.copytree(run, copy / "seed_4")
    shared = {**SMALL, "dataset_dir": str(phantom)}
    monai.bundle.run(
        config_file=[str(bundle / "configs" / f"{name}.json") for name in ("train", "calibrate", average)],
        bundle_root=str(bundle), logging_file=False, **shared, run_dir=str(copy), **settings,
        method="temperature", force=True,
    )  # fmt: skip
    folder = copy / average
    assert {path.name for path in (folder / "models").iterdir()} >= {"model_calibrated.ts", "training.json"}
    run_bundle(bundle, "evaluate", **shared, run_dir=str(folder), calibrated=True)
    corrected = calibration(folder / "calibrated")
    assert corrected["run"]["posthoc"] == "temperature"
    before, after = (calibration(folder / "posthoc" / name) for name in ("as_trained", "temperature"))
    assert before["run"]["inference"] == after["run"]["inference"]
    assert after["summary"]["nll_all_micro"] < before["summary"]["nll_all_micro"]
    record = json.loads((folder / "models" / "calibration_parameters.json").read_text())
    assert record["model"] == "model_calibrated.ts"


def test_snapshots_of_one_training_are_averaged_and_corrected(bundle: Path, phantom: Path, tmp_path: Path) -> None:
    shared = {**SMALL, "dataset_dir": str(phantom), "run_dir": str(tmp_path)}
    small = {"loss_name": "ce", "epochs": 4, "visits_per_epoch": 1, "snapshots": 2}
    run_bundle(bundle, "train", **shared, **small)
    kept = sorted(path.name for path in (tmp_path / "models" / "snapshots").iterdir())
    assert kept == ["epoch_0003.pt", "epoch_0004.pt"]
    last = torch.load(tmp_path / "models" / "checkpoint.ckpt", weights_only=True)["model"]
    snapshot = torch.load(tmp_path / "models" / "snapshots" / "epoch_0004.pt", weights_only=True)
    assert all(torch.equal(snapshot[name], value) for name, value in last.items())
    evaluate(bundle, "snapshots", dataset_dir=phantom, run_dir=tmp_path)
    assert calibration(tmp_path / "snapshots")["run"]["inference"] == "snapshots, mean of 2"
    with pytest.raises((RuntimeError, ValueError)) as caught:
        run_bundle(bundle, "train", **{**shared, "run_dir": str(tmp_path / "b")}, **{**small, "snapshots": 9})
    assert "snapshots: expected 0 to 2 in the second half of 4 epochs, got 9" in whole_story(caught.value)
