"""The steps of one run, one bundle process after another, wherever they are carried out."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .bundle_process import NO_SPACE
from .folders import missing_steps
from .plan import Run
from .steps import step_of

__all__ = ["Children", "Event", "Stopped", "perform", "run_environment"]

_LAST_LINES = 15
_GRACE_SECONDS = 10.0
# Freed memory stays in the process, for the next step to use: see docs/bundles.md.
_KEEPS_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The comparison was stopped while the run was under way."""


@dataclass(frozen=True)
class Event:
    """News of a run: ``started`` on a host, a ``step`` that took so long, ``done``, ``failed``, ``lost``."""

    kind: Literal["started", "step", "done", "failed", "lost"]
    name: str = ""
    seconds: float = 0.0
    lines: tuple[str, ...] = ()


class Children:
    """The bundle processes under way, to end them all at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._stopping = False

    def call(self, command: list[str], folder: Path, environment: Mapping[str, str], log: Path) -> int:
        """Runs a command in a folder and returns its exit status, negative for a signal.

        Raises:
            Stopped: if :meth:`stop` was called before or meanwhile.
        """
        with log.open("ab") as output:
            with self._lock:
                if self._stopping:
                    raise Stopped
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env=dict(environment),
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
                self._processes.add(process)
            with process:
                status = process.wait()
            with self._lock:
                self._processes.discard(process)
                if self._stopping:
                    raise Stopped
        return status

    def stop(self) -> None:
        """Ends all processes, asking first, and lets no further one start."""
        with self._lock:
            self._stopping = True
            processes = list(self._processes)
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + _GRACE_SECONDS
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()


def run_environment(threads: int) -> dict[str, str]:
    """The environment of a bundle process; what the user has set stays.

    Args:
        threads: for each of the processes side by side, so that together they have the machine's cores.
    """
    package = str(Path(__file__).parents[2])  # the bundle must import this package, from wherever it is
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    defaults = {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore", **_KEEPS_FREED_MEMORY}
    return {**defaults, **os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "PYTHONUNBUFFERED": "1"}


def perform(run: Run, environment: Mapping[str, str], children: Children, trained: bool = False) -> Iterator[Event]:
    """Carries out what the run's folder lacks, and tells what happens.

    Everything a bundle prints goes to ``run.log`` in the folder, each step after the last.

    Raises:
        Stopped: as :meth:`Children.call` does.
    """
    yield Event("started", name=socket.gethostname())
    log = run.folder / "run.log"
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        for name in missing_steps(run, trained):
            step = step_of(run, name)
            command = [sys.executable, "-m", f"{__package__}.bundle_process", str(run.folder), *step.arguments]
            began = time.monotonic()
            with log.open("ab") as output:
                output.write(f"\n=== {name}: python -m monai.bundle {' '.join(step.arguments)}\n".encode())
            length = log.stat().st_size
            status = children.call(command, run.bundle, environment, log)
            if status:
                how = f"ended with exit status {status}" if status > 0 else f"was ended by signal {-status}"
                cause, last = _what_went_wrong(log, length)
                if status == NO_SPACE:  # which the log may have had no room for
                    free = shutil.disk_usage(run.folder).free / 1e6
                    how = f"found no space left ({free:.1f} MB free) in {run.folder}"
                yield Event("failed", name=name, lines=(f"{name} {how}{cause}", *last))
                return
            yield Event("step", name=name, seconds=time.monotonic() - began)
        left = missing_steps(run, trained=True)
    except (OSError, ValueError) as error:
        yield Event("failed", lines=(f"{type(error).__name__}: {error}",))
        return
    if left:
        yield Event("failed", lines=(f"{left[0]} ended well, but left an incomplete folder",))
    else:
        yield Event("done")


def _what_went_wrong(log: Path, start: int) -> tuple[str, list[str]]:
    """The first of the chained errors, which is the cause (MONAI wraps it in its own), and the last lines."""
    with log.open("rb") as file:
        file.seek(start)
        lines = [line.rstrip()[:300] for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[A-Za-z_][\w.]*(Error|Exception)\b", line)]
    return f": {errors[0]}" if errors else "", lines[-_LAST_LINES:]
