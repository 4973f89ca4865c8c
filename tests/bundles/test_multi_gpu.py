"""The bundle on several processes, under torchrun with gloo on the CPU: trains, stops, resumes, and measures as one."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_runs import BUNDLES, run_bundle
from hypothesis import given
from hypothesis import strategies as st

from monai_calib.data import share_of_rank

BUNDLE = next(path for path in BUNDLES if path.name == "msd_hippocampus_segmentation_3d")
ONE_NODE = ["--standalone", "--nproc_per_node", "2"]


@given(st.integers(1, 9), st.integers(0, 50))
def test_shares_are_the_list_cut_in_even_parts(world_size: int, more: int) -> None:
    shares = [share_of_rank(world_size + more, rank, world_size) for rank in range(world_size)]
    assert [case for share in shares for case in share] == list(range(world_size + more))
    assert min(map(len, shares)) >= 1
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_more_processes_than_cases_are_refused() -> None:
    with pytest.raises(ValueError, match=r"3 cases for 4 processes.*Start at most 3"):
        share_of_rank(3, 0, 4)


@pytest.fixture(scope="module")
def data(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom's six cases, split so that two ranks get unequal shares: three to train on, to validate, to test."""
    folder = tmp_path_factory.mktemp("uneven")
    for name in ("imagesTr", "labelsTr"):
        (folder / name).symlink_to(phantom / name)
    listed = json.loads((phantom / "datalist.json").read_text())
    cases = [case for split in ("training", "validation", "test") for case in listed[split]]
    listed |= {"training": cases[:3], "validation": cases[3:], "test": cases[1:4]}
    (folder / "datalist.json").write_text(json.dumps(listed))
    return folder


def start(nodes: list[str], workflow: list[str], **settings: Any) -> subprocess.Popen[str]:
    files = str([str(BUNDLE / "configs" / f"{name}.json") for name in workflow])
    options = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    launcher = [sys.executable, "-m", "torch.distributed.run", *nodes]
    return subprocess.Popen(
        [*launcher, "-m", "monai.bundle", "run", "--config_file", files, "--bundle_root", str(BUNDLE), *options],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(*started: subprocess.Popen[str]) -> str:
    """Wait for all, demand that all succeeded, and return what they said."""
    try:
        said = "\n".join(process.communicate(timeout=900)[0] for process in started)
    finally:
        for process in started:
            process.terminate()  # the launcher takes its processes with it
    assert all(process.returncode == 0 for process in started), said
    return said


def train_on_two_ranks(**settings: Any) -> subprocess.Popen[str]:
    return start(ONE_NODE, ["train", "multi_gpu_train"], **settings)


def last_state(run: Path) -> dict[str, Any]:
    return torch.load(run / "models" / "checkpoint.ckpt", weights_only=True)


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "models" / "training.json").read_text())


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """As the ranks have, so that sums of floating-point numbers come in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder after three epochs on two ranks, of a network with running statistics that the ranks must share."""
    run = tmp_path_factory.mktemp("trained")
    settings = {"network_name": "attention_unet", "loss_name": "nacl", "seed": 5, "epochs": 3, "bfloat16": True}
    said = finish(train_on_two_ranks(dataset_dir=data, run_dir=run, **settings))
    assert said.count("epoch 3/3") == 1, "only the first rank logs"
    return run


LEAVES = """
import json, sys, time
import torch
from monai_calib.handlers.ranks import leave_process_group
torch.distributed.init_process_group("gloo")
torch.distributed.all_reduce(torch.ones(4))
time.sleep(2.0 * (torch.distributed.get_rank() == 0))
began = time.monotonic()
for expression in json.loads(sys.argv[1]):
    eval(expression.removeprefix("$"))
print(f"waited {time.monotonic() - began:.1f}", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("workflow", ["multi_gpu_train", "multi_gpu_evaluate"])
def test_ranks_leave_together(workflow: str, tmp_path: Path) -> None:
    """A rank that exits just after a collective may abort: a thread of gloo frees tensors without an interpreter."""
    (tmp_path / "leave.py").write_text(LEAVES)
    finalize = json.loads((BUNDLE / "configs" / f"{workflow}.json").read_text())["finalize"]
    said = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *ONE_NODE, str(tmp_path / "leave.py"), json.dumps(finalize)],
        capture_output=True, text=True, timeout=300, check=True,
    ).stdout  # fmt: skip
    waited = sorted(float(seconds) for seconds in re.findall(r"waited (\d+\.\d)", said))  # lines may run together
    assert len(waited) == 2
    assert waited[1] > 1.0, "the second rank must wait for the first"


@pytest.mark.slow
def test_training_writes_what_one_process_does(trained: Path) -> None:
    written = {path.name for path in (trained / "models").glob("[!.]*")}
    assert written == {"model.pt", "checkpoint.ckpt", "training.json"}
    assert record(trained)["epoch"] == 3
    # Three cases on two ranks: two each, one of them seen twice, and two a batch.
    assert last_state(trained)["iteration"] == 3
    assert not any(name.startswith("module.") for name in last_state(trained)["model"])


@pytest.mark.slow
@pytest.mark.usefixtures("_one_thread")
def test_two_nodes_write_the_same_evaluation_as_one_process(data: Path, trained: Path, tmp_path: Path) -> None:
    """Two launchers of one process each meet at an address, as on two machines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    nodes = ["--nnodes", "2", "--nproc_per_node", "1", "--rdzv_backend", "c10d", "--rdzv_endpoint", address]
    settings = {"dataset_dir": str(data), "run_dir": str(trained)}
    workflow = ["train", "evaluate", "multi_gpu_evaluate"]
    finish(*[start(nodes, workflow, **settings, output_dir=tmp_path / "many") for _ in range(2)])
    run_bundle(BUNDLE, "evaluate", **settings, output_dir=str(tmp_path / "one"))
    one, many = (
        {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("one", "many")
    )
    assert {"metrics.csv", "mean_dice_raw.csv", "calibration.json"} < one.keys()
    assert len(json.loads(one["calibration.json"])["cases"]) == 3
    assert {name for name in one.keys() | many.keys() if one.get(name) != many.get(name)} == set()


@pytest.mark.slow
@pytest.mark.usefixtures("_one_thread")
def test_validation_while_training_measured_the_model_that_was_saved(data: Path, trained: Path, tmp_path: Path) -> None:
    settings = {"dataset_dir": str(data), "run_dir": str(trained), "output_dir": str(tmp_path)}
    run_bundle(BUNDLE, "evaluate", **settings, split="validation")
    with (tmp_path / "metrics.csv").open() as file:
        measured = {row[0]: float(row[1]) for row in csv.reader(file)}
    assert measured["mean_dice"] == record(trained)["best_value"]


@pytest.mark.slow
def test_a_stopped_run_is_resumed_and_all_ranks_end_when_patience_is_over(data: Path, tmp_path: Path) -> None:
    # Without learning no epoch is better than the first.
    settings = {"dataset_dir": data, "run_dir": tmp_path, "loss_name": "ce", "learning_rate": 0.0, "epochs": 1000}
    running = train_on_two_ranks(**settings)
    while not (tmp_path / "models" / "training.json").is_file() or record(tmp_path)["epoch"] < 2:
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=300)
    assert running.returncode != 0
    reached = record(tmp_path)["epoch"]
    assert (record(tmp_path)["best_epoch"], last_state(tmp_path)["iteration"]) == (1, reached)

    finish(train_on_two_ranks(**settings, resume=True, early_stop_patience=reached + 1))
    assert (record(tmp_path)["epoch"], record(tmp_path)["best_epoch"]) == (reached + 2, 1)
    assert last_state(tmp_path)["iteration"] == reached + 2
