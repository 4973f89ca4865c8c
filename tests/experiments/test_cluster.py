"""The same comparison on a Ray cluster of two nodes, one of which is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_comparisons import Interrupted, bundle_process, is_alive, manifest, start_benchmark, wait_for

pytest.importorskip("ray")
pytestmark = pytest.mark.slow
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
SMALL = ["--num-cpus", "1", "--num-gpus", "0", "--object-store-memory", str(80 * 2**20), "--disable-usage-stats"]


def raylets(session: Path) -> set[int]:
    """The processes that are the nodes of the cluster in a folder."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if words[0].endswith("/raylet") and any(str(session) in word for word in words):
            found.add(int(process.name))
    return found


def children_of(process: int) -> set[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True).stdout
    return {int(word) for word in listed.split()}


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Address of a cluster, and the process of its second node."""
    session = Path(os.path.realpath("/tmp")) / f"ray_{os.getpid()}"  # sockets need a short path
    port = 20000 + os.getpid() % 10000
    started: set[int] = set()
    try:
        head = ["start", "--head", "--port", str(port), "--include-dashboard=false", "--temp-dir", str(session)]
        subprocess.run([*RAY, *head, *SMALL], check=True, capture_output=True)
        first = raylets(session)
        started |= first
        subprocess.run([*RAY, "start", "--address", f"127.0.0.1:{port}", *SMALL], check=True, capture_output=True)
        [second] = raylets(session) - first
        yield f"127.0.0.1:{port}", second
    finally:
        end_cluster(session)


def end_cluster(session: Path) -> None:
    """Ends what was started with that folder, and nothing else: ``ray stop`` would end every cluster of the machine."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(session) in command and int(process.name) != os.getpid():
            os.kill(int(process.name), signal.SIGKILL)
    subprocess.run(["rm", "-rf", str(session)], check=True)


def test_a_comparison_outlives_a_node_and_equals_the_local_one(
    cluster: tuple[str, int], interrupted: Interrupted, tmp_path: Path
) -> None:
    address, second_node = cluster
    losses = ("mbls:margin=10.0", "mbls:margin=5.0")
    process = start_benchmark(
        *(tmp_path, interrupted.phantom, "--ray", address, "--seeds", "1", "--set", "epochs=2", "--retries", "0"),
        *("--losses", *losses),
    )
    runs = tmp_path / "runs" / "msd_hippocampus_segmentation_3d" / "unet"
    keys = ("mbls_margin=10.0", "mbls_margin=5.0")

    def on_second_node() -> tuple[str, int] | None:
        workers = children_of(second_node)
        for key in keys:
            child = bundle_process(runs / key / "seed_0")
            trains = (runs / key / "seed_0" / "models" / "training.json").is_file()
            if child and trains and any(child in children_of(worker) for worker in workers):
                return key, child
        return None

    key, child = wait_for(on_second_node)
    os.kill(second_node, signal.SIGKILL)
    wait_for(lambda: not is_alive(child))
    said, _ = process.communicate()
    assert process.returncode == 0, said
    states = {name.split("/")[2]: entry for name, entry in manifest(tmp_path).items()}
    assert {entry["state"] for entry in states.values()} == {"done"}
    assert states[key]["attempts"] == 2
    assert "its worker was lost" in said

    other = next(name for name in keys if name != key)
    for name in keys:
        here = json.loads((runs / name / "seed_0/eval/calibration.json").read_text())
        there = interrupted.output / "runs/msd_hippocampus_segmentation_3d/unet" / name / "seed_0/eval/calibration.json"
        local = json.loads(there.read_text())
        assert here["run"] == local["run"]
        if name == other == "mbls_margin=10.0":  # neither was interrupted
            assert here["summary"] == local["summary"]
