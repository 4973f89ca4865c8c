"""Training, stopping, resumption, places and errors, on the phantom."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_runs import load_workflow, named, run_bundle, whole_story
from ignite.engine import Events

HIPPOCAMPUS = [named(f"msd_hippocampus_segmentation_{dims}d") for dims in (2, 3)]
BUNDLE_3D = HIPPOCAMPUS[1]


@pytest.fixture(scope="module", params=HIPPOCAMPUS, ids=lambda path: path.name)
def bundle(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(scope="module")
def trained(bundle: Path, phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a bundle after training and evaluation on the phantom."""
    run = tmp_path_factory.mktemp(bundle.name)
    run_bundle(bundle, "train", dataset_dir=str(phantom), run_dir=str(run), epochs=1, loss_name="nacl_outer", seed=3)
    run_bundle(bundle, "evaluate", dataset_dir=str(phantom), run_dir=str(run))
    return run


def test_calibration_folds_into_a_model_that_evaluates(
    bundle: Path, phantom: Path, trained: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    run_bundle(bundle, "calibrate", dataset_dir=str(phantom), run_dir=str(run), method="temperature", force=True)
    names = ("model", "model_calibrated")
    plain, folded = (torch.load(run / "models" / f"{name}.pt", weights_only=True) for name in names)
    changed = [name for name in plain if not torch.equal(plain[name], folded[name])]
    assert {name.rsplit(".", 1)[-1] for name in changed} <= {"weight", "bias"}
    assert len({name.rsplit(".", 1)[0] for name in changed}) == 1, "only the last convolution changes"
    calibrated_model = str(run / "models" / "model_calibrated.pt")
    run_bundle(bundle, "evaluate", dataset_dir=str(phantom), run_dir=str(run), model_path=calibrated_model)
    before, after = (json.loads((path / "eval" / "calibration.json").read_text())["summary"] for path in (trained, run))
    assert before.keys() == after.keys()
    assert before != after


def test_same_seed_same_weights_and_another_seed_others(phantom: Path, tmp_path: Path) -> None:
    weights = []
    for run, seed in (("a", 0), ("b", 0), ("c", 1)):
        settings = {"dataset_dir": str(phantom), "run_dir": str(tmp_path / run), "seed": seed, "epochs": 1}
        run_bundle(BUNDLE_3D, "train", **settings, loss_name="ce")
        weights.append(torch.load(tmp_path / run / "models" / "checkpoint.ckpt", weights_only=True)["model"])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_an_interrupted_run_goes_on_where_it_stopped(phantom: Path, tmp_path: Path) -> None:
    settings = {"dataset_dir": str(phantom), "run_dir": str(tmp_path), "epochs": 3, "loss_name": "crac"}
    interrupted = load_workflow(BUNDLE_3D, "train", **settings)
    interrupted.trainer.add_event_handler(Events.EPOCH_COMPLETED(once=1), lambda engine: engine.terminate())
    interrupted.run()
    first = torch.load(tmp_path / "models" / "checkpoint.ckpt", weights_only=True)
    assert first["epoch"] == 1
    # A best value that cannot be reached again shows that it is kept.
    first["best_value"] = 2.0
    # and a steepness that three validations do not bring, that the loss's multipliers are
    first["loss"]["penalty.rho"] += 3.0
    torch.save(first, tmp_path / "models" / "checkpoint.ckpt")
    best_model = (tmp_path / "models" / "model.pt").read_bytes()

    run_bundle(BUNDLE_3D, "train", **settings, resume=True)
    last = torch.load(tmp_path / "models" / "checkpoint.ckpt", weights_only=True)
    assert (last["epoch"], last["iteration"]) == (3, 3 * first["iteration"])
    assert last["lr_scheduler"]["last_epoch"] == 3
    assert {int(state["step"]) for state in last["optimizer"]["state"].values()} == {last["iteration"]}
    assert (last["best_value"], last["best_epoch"]) == (2.0, 1)
    assert torch.equal(last["loss"]["penalty.rho"], first["loss"]["penalty.rho"])
    assert (last["loss"]["penalty.multiplier"] > first["loss"]["penalty.multiplier"]).any()
    assert (tmp_path / "models" / "model.pt").read_bytes() == best_model


def test_training_stops_when_patience_is_over(phantom: Path, tmp_path: Path) -> None:
    settings = {"dataset_dir": str(phantom), "run_dir": str(tmp_path), "loss_name": "ce"}
    # Without learning no epoch is better than the first.
    run_bundle(BUNDLE_3D, "train", **settings, epochs=5, learning_rate=0.0, early_stop_patience=2)
    record = json.loads((tmp_path / "models" / "training.json").read_text())
    assert (record["epoch"], record["best_epoch"]) == (3, 1)


@pytest.mark.slow
def test_own_folder_elsewhere_and_a_path_with_spaces(phantom: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "a path with spaces" / "bundle"
    shutil.copytree(BUNDLE_3D, bundle, ignore=shutil.ignore_patterns("models", "eval", "logs", "predictions"))
    data = shutil.copytree(phantom, tmp_path / "my data")

    def run(folder: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "monai.bundle", "run", *arguments]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr

    run(bundle, "--config_file", "configs/train.json", "--dataset_dir", str(data), "--epochs", "1", "--device", "cpu")
    assert (bundle / "models" / "model.pt").is_file()
    evaluate = "['configs/train.json','configs/evaluate.json']"
    run(bundle, "--config_file", evaluate, "--dataset_dir", str(data))
    assert (bundle / "eval" / "calibration.json").is_file()
    inference = ["--config_file", str(bundle / "configs" / "inference.json"), "--bundle_root", str(bundle)]
    run(tmp_path, *inference, "--dataset_dir", str(data / "imagesTr"))
    assert len(list((bundle / "predictions").glob("*_seg.nii.gz"))) == 6


def test_a_missing_data_folder_is_named_with_what_to_do(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        run_bundle(bundle, "train", dataset_dir=str(tmp_path / "nowhere"), run_dir=str(tmp_path))
    story = whole_story(caught.value)
    assert str(tmp_path / "nowhere") in story
    assert "python data_scripts/" in story


def test_a_missing_image_folder_is_named(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        run_bundle(bundle, "inference", dataset_dir=str(tmp_path / "nowhere"), run_dir=str(tmp_path))
    assert str(tmp_path / "nowhere") in whole_story(caught.value)


def test_a_truncated_volume_is_named(phantom: Path, tmp_path: Path) -> None:
    data = shutil.copytree(phantom, tmp_path / "data")
    victim = data / json.loads((data / "datalist.json").read_text())["training"][0]["image"]
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    with pytest.raises(RuntimeError) as caught:
        run_bundle(BUNDLE_3D, "train", dataset_dir=str(data), run_dir=str(tmp_path))
    assert f"cannot read {str(victim)!r}" in whole_story(caught.value)


def test_a_label_out_of_range_is_named(phantom: Path, tmp_path: Path) -> None:
    data = shutil.copytree(phantom, tmp_path / "data")
    victim = data / json.loads((data / "datalist.json").read_text())["training"][0]["label"]
    volume = nib.load(victim)
    values = np.asarray(volume.dataobj).copy()
    values[0, 0, 0] = 7
    victim.write_bytes(gzip.compress(nib.Nifti1Image(values, volume.affine).to_bytes()))
    with pytest.raises(RuntimeError) as caught:
        run_bundle(BUNDLE_3D, "train", dataset_dir=str(data), run_dir=str(tmp_path))
    assert f"label {str(victim)!r}: expected whole class numbers from 0 to 2, got 7" in whole_story(caught.value)
