"""A Ray cluster of this machine for a test: a head that leaves the work to two nodes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_cluster() -> Iterator[tuple[str, list[int]]]:
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
