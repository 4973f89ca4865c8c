"""What is planned, without running it: specifications, folders, environments, the lock, and the time left."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from other_process import held
from small_comparisons import BUNDLE, small_plan

from monai_calib.__main__ import main
from monai_calib.experiments import FolderInUseError, Manifest, Named, RayWorkers, make_plan, missing_steps, variants
from monai_calib.experiments.perform import Children, Stopped
from monai_calib.experiments.progress import Progress
from monai_calib.experiments.steps import step_of
from monai_calib.experiments.workers import available_cores, place_environments
from monai_calib.lock import FolderLock
from monai_calib.losses import PRESETS
from monai_calib.posthoc import METHODS


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ce", ["ce"]),
        ("mbls:margin=5.0", ["mbls_margin=5.0"]),
        ("dice_ce+nacl_outer:alpha=1.0", ["dice_ce+nacl_outer_alpha=1.0"]),
        ("nacl:kernel_ops=gaussian|mean,sigma=2", ["nacl_kernel_ops=gaussian_sigma=2", "nacl_kernel_ops=mean_sigma=2"]),
        ("mbls+nacl:nacl={'alpha': 0.2}", ["mbls+nacl_nacl=alpha=0.2"]),
        ("temperature:region='boundary:2mm'", ["temperature_region=boundary2mm"]),
    ],
)
def test_a_specification_names_its_folders(text: str, keys: list[str]) -> None:
    assert [variant.key for variant in variants(text)] == keys


@pytest.mark.parametrize(
    "text", ["", ":margin=5", "mbls:5", "mbls:margin", "mbls:margin=", "mbls:margin=f(1)", "a:**b"]
)
def test_a_specification_that_cannot_be_read_says_so(text: str) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        variants(text)


ARGUMENTS = st.sampled_from(["margin", "alpha", "gamma"])


@settings(deadline=None)
@given(st.dictionaries(ARGUMENTS, st.lists(st.floats(0, 9), min_size=1, max_size=3)))
def test_options_make_every_combination_once_in_order(options: dict[str, list[float]]) -> None:
    text = "loss:" + ",".join(f"{name}={'|'.join(map(repr, values))}" for name, values in options.items())
    made = [variant.arguments for variant in variants(text)]
    expected: list[dict[str, float]] = [{}]
    for name, values in options.items():
        expected = [{**before, name: value} for before in expected for value in values]
    assert made == expected


def test_a_plan_goes_seed_by_seed_and_knows_what_training_will_record(phantom: Path, tmp_path: Path) -> None:
    plan = small_plan(tmp_path, phantom, "ce", "mbls:margin=5.0|10.0", seeds=[0, 1], networks=["unet", "segresnet"])
    assert [run.seed for run in plan.runs] == [0] * 6 + [1] * 6
    assert len({run.folder for run in plan.runs}) == 12
    run = plan.runs[4]
    assert run.key == "msd_hippocampus_segmentation_3d/segresnet/mbls_margin=5.0/seed_0"
    expected = {
        "bundle": "msd_hippocampus_segmentation_3d",
        "loss_name": "mbls",
        "loss_args": {"margin": 5.0},
        "network_name": "segresnet",
        "seed": 0,
        "epochs": 1,  # given
        "batch_size": 2,  # the bundle's own
    }
    assert {name: run.recorded[name] for name in expected} == expected
    assert all(run.on_validation for run in plan.runs), "the page chooses among the losses there"
    (alone,) = small_plan(tmp_path / "alone", phantom, "ce").runs
    assert not alone.on_validation


def test_a_plan_that_cannot_be_is_refused(phantom: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="twice"):
        small_plan(tmp_path, phantom, "mbls:margin=5.0", "mbls:margin=5.0|10.0")
    with pytest.raises(ValueError, match=r"no network 'vnet'; it has unet, "):
        small_plan(tmp_path, phantom, "ce", networks=["vnet"])
    with pytest.raises(ValueError, match="--set seed"):
        small_plan(tmp_path, phantom, "ce", settings={"seed": 3})
    with pytest.raises(FileNotFoundError, match=r"datalist\.json"):
        small_plan(tmp_path, tmp_path, "ce")
    with pytest.raises(ValueError, match="no bundle"):
        make_plan(tmp_path, [tmp_path], phantom, {"ce": variants("ce")}, [0])


def test_a_dry_run_says_what_is_to_do_and_writes_nothing(
    phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["benchmark", "--bundle", str(BUNDLE), "--dataset_dir", str(phantom), "--output", str(tmp_path / "out")]
    options = ["--losses", "ce", "mbls:margin=5.0|10.0", "nacl", "--seeds", "1", "--posthoc", "temperature"]
    assert main([*command, *options, "--dry-run"]) == 0
    said = capsys.readouterr().out.splitlines()
    steps = {line.split("/")[2]: line.partition(": ")[2] for line in said[:-1]}
    corrected = "calibrate temperature, evaluate temperature"
    assert steps == {
        "ce": f"train, evaluate, evaluate validation, {corrected}",
        "mbls_margin=5.0": f"train, evaluate, evaluate validation, {corrected}",
        "mbls_margin=10.0": f"train, evaluate, evaluate validation, {corrected}",
        "nacl": f"train, evaluate, evaluate validation, {corrected}",
    }
    assert said[-1].startswith("4 of 4 runs to do")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--losses", "nosuchloss"], "unknown loss 'nosuchloss'"),
        (["--losses", "dice_ce+nalc"], "Did you mean 'nacl'?"),
        (["--losses", "mbls:margni=5"], "mbls does not take margni"),
        (["--losses", "mbls:margin=x"], "--losses mbls_margin=x: "),
        (["--losses", "ce", "--posthoc", "temprature"], "Did you mean 'temperature'?"),
        (["--losses", "ce", "--posthoc", "temperature:nothing=1"], "'nothing'"),
        (["--losses", "ce", "--set", "epcohs=2"], "Did you mean 'epochs'?"),
        (["--losses", "ce", "--set", "epochs=2", "batch_sise=4"], "Did you mean 'batch_size'?"),
    ],
)
def test_a_misspelt_name_is_refused_before_anything_starts(
    options: list[str], told: str, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["benchmark", "--bundle", str(BUNDLE), "--dataset_dir", str(phantom), "--output", str(tmp_path / "out")]
    assert main([*command, *options]) == 1
    said = capsys.readouterr().err
    assert told in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_flag_of_before_names_the_one_of_now(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["benchmark", "--bundle", str(BUNDLE), "--dataset_dir", str(tmp_path), "--output", str(tmp_path / "out")]
    assert main([*command, "--losses", "mbls", "--margins", "5", "10"]) == 2
    assert "--losses 'mbls:margin=5|10'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "setting", ["epochs=1", "train#trainer#max_epochs=1", "validate::handlers=[]", "tracking=mlflow"]
)
def test_a_setting_that_is_there_passes(setting: str, phantom: Path, tmp_path: Path) -> None:
    command = ["benchmark", "--bundle", str(BUNDLE), "--dataset_dir", str(phantom), "--output", str(tmp_path / "out")]
    assert main([*command, "--losses", *PRESETS, "--posthoc", *METHODS, "--set", setting, "--dry_run"]) == 0


def test_only_a_whole_evaluation_of_this_version_is_finished(phantom: Path, tmp_path: Path) -> None:
    run = small_plan(tmp_path, phantom, "ce").runs[0]
    (run.folder / "models").mkdir(parents=True)
    (run.folder / "models" / "model.pt").touch()
    evaluation = {"cases": [{"case": "a"}], "run": {}}
    for folder, content, left in (
        ("eval", {**evaluation, "format": "monai_calib/calibration/1"}, ["evaluate"]),  # of 0.1.0
        (".eval.partial", {**evaluation, "format": "monai_calib/evaluation/1"}, ["evaluate"]),  # killed
        ("eval.partial", {**evaluation, "format": "monai_calib/evaluation/1"}, ["evaluate"]),  # killed at 0.1.0
        ("eval", {**evaluation, "format": "monai_calib/evaluation/1"}, []),
    ):
        (run.folder / folder).mkdir(exist_ok=True)
        (run.folder / folder / "calibration.json").write_text(json.dumps(content))
        assert missing_steps(run, trained=True) == left


def test_a_correction_is_known_by_its_record(phantom: Path, tmp_path: Path) -> None:
    run = small_plan(tmp_path, phantom, "ce", posthoc=[Named("temperature")]).runs[0]
    models = run.folder / "posthoc" / "temperature" / "models"
    models.mkdir(parents=True)
    assert missing_steps(run)[-2:] == ["calibrate temperature", "evaluate temperature"]
    (models / "calibration_parameters.json").write_text('{"half": ')
    assert "calibrate temperature" in missing_steps(run)
    (models / "calibration_parameters.json").write_text('{"method": "temperature"}')
    assert "calibrate temperature" not in missing_steps(run)


def test_a_correction_is_forced_where_the_bundle_refuses_to_replace_one(phantom: Path, tmp_path: Path) -> None:
    run = small_plan(tmp_path, phantom, "ce", posthoc=[Named("temperature")]).runs[0]
    shutil.copytree(run.bundle / "configs", tmp_path / "bundle" / "configs")
    path = tmp_path / "bundle" / "configs" / "calibrate.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "force": False}))
    forced = step_of(replace(run, bundle=tmp_path / "bundle"), "calibrate temperature").arguments
    assert forced[forced.index("--force") + 1] == "True"
    content.pop("force", None)
    path.write_text(json.dumps(content))
    assert "--force" not in step_of(replace(run, bundle=tmp_path / "bundle"), "calibrate temperature").arguments


@pytest.mark.parametrize("name", ["last.pt", "checkpoint.ckpt"])
def test_a_training_that_left_a_checkpoint_is_resumed(name: str, phantom: Path, tmp_path: Path) -> None:
    run = small_plan(tmp_path, phantom, "ce").runs[0]
    assert "--resume" not in step_of(run, "train").arguments
    (run.folder / "models").mkdir(parents=True)
    (run.folder / "models" / name).touch()
    assert "--resume" in step_of(run, "train").arguments


def test_a_cluster_that_is_not_there_is_told_at_once() -> None:
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionError, match=f"no Ray cluster at 127.0.0.1:{port}"):
        RayWorkers(f"127.0.0.1:{port}")


def test_a_manifest_of_another_kind_is_not_overwritten(phantom: Path, tmp_path: Path) -> None:
    plan = small_plan(tmp_path, phantom, "ce")
    own = {"format": "monai_calib/benchmark/1"}
    for content in ({"format": "another"}, own, {**own, "runs": [1]}, {**own, "runs": {"a": {"beauty": 1}}}):
        (tmp_path / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"manifest\.json: .*Move it away"):
            Manifest(plan)
    for text in ("{", "[]", "[" * 100_000):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.json: .*Move it away"):
            Manifest(plan)


def test_a_lock_ends_with_its_holder(tmp_path: Path) -> None:
    with held(tmp_path, doing="a test") as process:
        told = rf"in use by process {process} on .*\(a test\)"
        with pytest.raises(FolderInUseError, match=told), FolderLock(tmp_path):
            pass
    with FolderLock(tmp_path), FolderLock(tmp_path):  # a step of a locked work may lock again
        pass


def test_a_bundle_process_waits_for_the_folder_and_ends_with_its_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "monai_calib.experiments.bundle_process", str(tmp_path), "run"]
    with FolderLock(tmp_path, name=".run.lock"), subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        assert process.stdin is not None
        process.stdin.close()  # as the system does when the parent dies
        assert process.wait() == -signal.SIGKILL


def test_cores_are_shared_and_gpus_go_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    places = place_environments(3)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places] == ["2", "5", "2"]
    assert {place["OMP_NUM_THREADS"] for place in places} == {str(max(1, available_cores() // 3))}
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    [place] = place_environments(1)
    assert (place["OMP_NUM_THREADS"], place["CUDA_VISIBLE_DEVICES"]) == ("7", "")


def test_stopping_ends_a_child_even_if_it_does_not_listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_calib.experiments.perform._GRACE_SECONDS", 0.2)
    children = Children()
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    outcome: list[BaseException] = []

    def call() -> None:
        try:
            children.call([sys.executable, "-c", code], tmp_path, os.environ, tmp_path / "log")
        except Stopped as stopped:
            outcome.append(stopped)

    thread = threading.Thread(target=call)
    thread.start()
    while "deaf" not in ((tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""):
        time.sleep(0.02)
    children.stop()
    thread.join()
    assert len(outcome) == 1
    with pytest.raises(Stopped):
        children.call([sys.executable, "-c", "pass"], tmp_path, os.environ, tmp_path / "log")


def test_the_time_left_is_that_of_runs_like_those_done(phantom: Path, tmp_path: Path) -> None:
    plan = small_plan(tmp_path, phantom, "ce", "nacl", seeds=[0, 1, 2])
    manifest = Manifest(plan)
    shown = io.StringIO()
    progress = Progress(manifest, places=2, stream=shown)
    assert progress.seconds_left() is None
    manifest.update(plan.runs[0], state="done", trained=True, seconds=100.0)
    manifest.update(plan.runs[1], state="done", trained=True, seconds=140.0)
    manifest.update(plan.runs[2], state="done")  # made before: how long it took is not known
    manifest.update(plan.runs[3], state="failed")
    assert progress.seconds_left() == 120.0  # two runs of 120 s, two at a time
    progress.ended(plan.runs[2], "done")
    assert shown.getvalue() == f"[3/6] {plan.runs[2].key}: done; about 2 min left\n"
