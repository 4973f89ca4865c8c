"""A comparison of real bundle runs: killed, resumed, adopted, corrected, stopped by Ctrl-C, and on a cluster."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from small_cluster import children_of, small_cluster
from small_comparisons import Interrupted, bundle_process, is_alive, manifest, small_plan, start_benchmark, wait_for

from monai_calib.experiments import (
    Manifest,
    MismatchError,
    Workers,
    missing_steps,
    report_folders,
    run_benchmark,
    write_results,
)

pytestmark = pytest.mark.slow
NAME = "msd_hippocampus_segmentation_3d/unet"


def nobody() -> Workers:
    raise AssertionError("there is nothing to do")


def test_the_killed_training_goes_on_after_its_last_epoch(interrupted: Interrupted) -> None:
    key = f"{NAME}/mbls_margin=5.0/seed_0"
    assert interrupted.state_when_killed[key]["state"] == "running"
    entry = manifest(interrupted.output)[key]
    assert (entry["state"], entry["attempts"]) == ("done", 2)
    log = (interrupted.output / "runs" / key / "run.log").read_text()
    assert [line.split(" ", 2)[1] for line in log.splitlines() if line.startswith("=== ")].count("train:") == 2
    assert "--resume True" in log
    _, killed, resumed = log.split(
        "=== train:"
    )  # its line on an epoch comes after the checkpoint that the kill waited for
    assert "epoch 2/2" not in killed
    assert "epoch 1/2" not in resumed
    assert resumed.count("epoch 2/2") == 1
    record = json.loads((interrupted.output / "runs" / key / "models" / "training.json").read_text())
    assert record["epoch"] == 2
    assert entry["training_seconds"] == pytest.approx(record["seconds"], abs=0.1)


def test_two_calls_on_one_folder_are_refused(interrupted: Interrupted) -> None:
    assert str(interrupted.output) in str(interrupted.second_call)
    assert "in use by process" in str(interrupted.second_call)


def test_a_run_that_fails_is_repeated_and_stops_no_other(interrupted: Interrupted) -> None:
    key = f"{NAME}/no_such_loss/seed_0"
    assert interrupted.failed == [key]
    entries = manifest(interrupted.output)
    assert {name: entry["state"] for name, entry in entries.items()} == {
        f"{NAME}/mbls_margin=5.0/seed_0": "done",
        f"{NAME}/mbls_margin=10.0/seed_0": "done",
        key: "failed",
    }
    assert entries[key]["attempts"] == 2
    assert "ValueError: Unknown loss 'no_such_loss'" in entries[key]["error"][0]


def test_validation_chooses_and_test_does_not(interrupted: Interrupted, tmp_path: Path) -> None:
    results = json.loads((interrupted.output / "results.json").read_text())
    [choice] = results["choices"]
    on_validation = {
        run.loss.key: json.loads((run.folder / "validation/eval/calibration.json").read_text())
        for run in interrupted.plan.runs
        if run.loss.name == "mbls"
    }
    assert {content["run"]["split"] for content in on_validation.values()} == {"validation"}
    values = {loss: content["summary"]["nll_all_macro"] for loss, content in on_validation.items()}
    assert choice["values"] == values
    best = min(values, key=values.__getitem__)
    assert {run["key"].split("/")[2]: run["chosen"] for run in results["runs"]} == {
        loss: loss == best for loss in values
    }
    [chosen] = report_folders(interrupted.plan, Manifest(interrupted.plan))
    assert chosen.parent.name == best
    for run in results["runs"]:
        on_test = json.loads((interrupted.output / "runs" / run["key"] / "eval/calibration.json").read_text())
        assert on_test["run"]["split"] == "test"
        assert run["figures"]["nll_all_macro"] == pytest.approx(on_test["summary"]["nll_all_macro"], rel=1e-5)
        assert run["training_seconds"] > 0


def test_a_choice_by_something_not_measured_says_what_was(interrupted: Interrupted) -> None:
    plan = replace(interrupted.plan, choose_by="beauty")
    with pytest.raises(ValueError, match=r"measured no 'beauty'.*nll_all_macro"):
        write_results(plan, Manifest(plan))


def test_finished_runs_are_adopted_without_a_manifest(interrupted: Interrupted, tmp_path: Path) -> None:
    key = f"{NAME}/mbls_margin=10.0/seed_0"
    made_by_hand = tmp_path / "runs" / key
    shutil.copytree(interrupted.output / "runs" / key, made_by_hand)
    plan = small_plan(tmp_path, interrupted.phantom, "mbls:margin=10.0", settings={"epochs": 2})
    assert run_benchmark(plan, nobody) == []
    assert manifest(tmp_path)[key]["state"] == "done"
    assert manifest(tmp_path)[key]["attempts"] == 0
    (made_by_hand / "eval" / "calibration.json").unlink()
    assert missing_steps(plan.runs[0]) == ["evaluate"]
    (made_by_hand / "models" / "checkpoint.ckpt").unlink()
    (made_by_hand / "models" / "training.json").unlink()
    assert missing_steps(plan.runs[0]) == ["train", "evaluate"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": 3}, r"epochs was 2, the plan has 3\."),
        ({"epochs": 2, "learning_rate": 0.1}, r"learning_rate was 'the default', the plan has 0.1\."),
        ({"epochs": 2, "bfloat16": True}, r"bfloat16 was 'the default', the plan has True\."),
    ],
)
def test_a_run_made_with_other_settings_is_not_taken(
    interrupted: Interrupted, settings: dict[str, object], said: str
) -> None:
    plan = small_plan(interrupted.output, interrupted.phantom, "mbls:margin=10.0", settings=settings)
    before = (interrupted.output / "manifest.json").read_bytes()
    with pytest.raises(MismatchError, match=said):
        run_benchmark(plan, nobody)
    assert (interrupted.output / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": 3}, r"training.json was made with other settings: epochs is 2, the plan has 3\."),
        ({"epochs": 2, "learning_rate": 0.1}, r"learning_rate is 0.004, the plan has 0.1\."),
    ],
)
def test_a_run_made_by_hand_with_other_settings_is_not_taken(
    interrupted: Interrupted, tmp_path: Path, settings: dict[str, object], said: str
) -> None:
    key = f"{NAME}/mbls_margin=10.0/seed_0"
    shutil.copytree(interrupted.output / "runs" / key, tmp_path / "runs" / key)
    with pytest.raises(MismatchError, match=said):
        run_benchmark(small_plan(tmp_path, interrupted.phantom, "mbls:margin=10.0", settings=settings), nobody)


def test_a_run_with_another_loss_in_the_folder_is_not_taken(interrupted: Interrupted, tmp_path: Path) -> None:
    shutil.copytree(interrupted.plan.runs[0].folder, tmp_path / "runs" / NAME / "ce" / "seed_0")
    with pytest.raises(MismatchError, match=r"loss_name is 'mbls', the plan has 'ce'; loss_args is {'margin': 5.0}"):
        run_benchmark(small_plan(tmp_path, interrupted.phantom, "ce", settings={"epochs": 2}), nobody)


def test_corrections_are_fitted_and_evaluated_as_runs_of_their_own(interrupted: Interrupted, tmp_path: Path) -> None:
    """One that folds into the network, and one that comes as TorchScript."""
    key = f"{NAME}/mbls_margin=10.0/seed_0"
    shutil.copytree(interrupted.output / "runs" / key, tmp_path / "runs" / key)
    process = start_benchmark(
        *(tmp_path, interrupted.phantom, "--losses", "mbls:margin=10.0", "--seeds", "1", "--set", "epochs=2"),
        *("--posthoc", "temperature:region=all", "isotonic"),
    )
    said, _ = process.communicate()
    assert process.returncode == 0, said
    posthoc = tmp_path / "runs" / key / "posthoc"
    trained = json.loads((tmp_path / "runs" / key / "eval/calibration.json").read_text())
    parameters = json.loads((posthoc / "temperature_region=all/models/calibration_parameters.json").read_text())
    assert parameters["fit"]["region"] == "all"
    nll = {}
    for method in ("temperature_region=all", "isotonic"):
        content = json.loads((posthoc / method / "eval/calibration.json").read_text())
        correction = content["run"].pop("correction")
        assert content["run"] == {**trained["run"], "posthoc": method}
        assert correction["fitted_on"] == "validation"
        assert not (posthoc / method / "posthoc").exists(), "the test split is evaluated, and nothing else"
        nll[method] = content["summary"]["nll_all_macro"]
    assert len({trained["summary"]["nll_all_macro"], *nll.values()}) == 3
    rows = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert [row["posthoc"] for row in rows] == [None, "temperature_region=all", "isotonic"]
    page = (tmp_path / "report.html").read_text()
    assert "temperature_region=all" in page
    assert "isotonic" in page


def test_ctrl_c_ends_the_children_and_leaves_a_plan_to_go_on_with(phantom: Path, tmp_path: Path) -> None:
    process = start_benchmark(tmp_path, phantom, "--losses", "ce", "--seeds", "2", "--set", "epochs=1")
    folder = tmp_path / "runs" / NAME / "ce" / "seed_0"
    child = wait_for(lambda: bundle_process(folder))
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate()
    assert process.returncode == 130, said
    assert not is_alive(child)
    assert {entry["state"] for entry in manifest(tmp_path).values()} == {"waiting"}
    assert "interrupted" in said
    assert "Traceback" not in said


@pytest.fixture
def cluster() -> Iterator[tuple[str, list[int]]]:
    pytest.importorskip("ray")
    with small_cluster() as started:
        yield started


def test_on_a_cluster_a_comparison_outlives_a_node_and_equals_the_local_one(
    cluster: tuple[str, list[int]], interrupted: Interrupted, tmp_path: Path
) -> None:
    """The local comparison was killed after the first epoch of one run; here its node is."""
    address, nodes = cluster
    process = start_benchmark(
        *(tmp_path, interrupted.phantom, "--ray", address, "--seeds", "1", "--set", "epochs=2", "--retries", "0"),
        *("--losses", "mbls:margin=5.0", "mbls:margin=10.0"),
    )
    runs = Path("runs/msd_hippocampus_segmentation_3d/unet")
    folder = tmp_path / runs / "mbls_margin=5.0/seed_0"
    wait_for((folder / "models" / "training.json").is_file)
    child = bundle_process(folder)
    assert child is not None
    os.kill(child, signal.SIGSTOP)
    [node] = [node for node in nodes if any(child in children_of(worker) for worker in children_of(node))]
    os.kill(node, signal.SIGKILL)
    os.kill(child, signal.SIGCONT)
    wait_for(lambda: not is_alive(child))
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert "its worker was lost" in said
    entries = {name.split("/")[2]: entry for name, entry in manifest(tmp_path).items()}
    assert {key: (entry["state"], entry["attempts"]) for key, entry in entries.items()} == {
        "mbls_margin=5.0": ("done", 2),
        "mbls_margin=10.0": ("done", 1),
    }
    for key in entries:
        evaluated = runs / key / "seed_0/eval/calibration.json"
        assert json.loads((tmp_path / evaluated).read_text()) == json.loads(
            (interrupted.output / evaluated).read_text()
        )
