"""The same comparison on a Ray cluster whose head leaves the work to two nodes; one is killed in the middle."""

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
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[int]]]:
    """Address of a cluster, and the processes of its two nodes; the head has no cores of its own."""
    session = Path(os.path.realpath("/tmp")) / f"ray_{os.getpid()}"  # sockets need a short path
    port = 20000 + os.getpid() % 10000
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-gpus", "0", "--disable-usage-stats"]
    start += ["--object-store-memory", str(80 * 2**20)]
    try:
        head = ["--head", "--port", str(port), "--num-cpus", "0", "--include-dashboard=false"]
        subprocess.run([*start, *head, "--temp-dir", str(session)], check=True, capture_output=True)
        first = raylets(session)
        for _ in range(2):
            node = ["--address", f"127.0.0.1:{port}", "--num-cpus", "1"]
            subprocess.run([*start, *node], check=True, capture_output=True)
        yield f"127.0.0.1:{port}", sorted(raylets(session) - first)
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
