"""Small comparisons: their plan, the command in a process, and how a test watches it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_calib.experiments import FolderInUseError, Plan, make_plan, variants

REPOSITORY = Path(__file__).parents[2]
BUNDLE = REPOSITORY / "bundles" / "msd_hippocampus_segmentation_3d"
LONG = 900.0
"""Seconds after which something has not happened at all; no test takes that long."""


def small_plan(output: Path, phantom: Path, *losses: str, **options: Any) -> Plan:
    """The losses with seed 0 and one epoch, if nothing else is said."""
    options = {"seeds": [0], "settings": {"epochs": 1}, **options}
    return make_plan(output, [BUNDLE], phantom, {text: variants(text) for text in losses}, **options)


def _listen_to_ctrl_c() -> None:
    """A test suite in the background of a shell ignores Ctrl-C, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start_benchmark(output: Path, phantom: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command in a process, which Ctrl-C would reach."""
    command = [sys.executable, "-m", "monai_calib", "benchmark", "--bundle", str(BUNDLE), "--dataset_dir", str(phantom)]
    return subprocess.Popen(
        [*command, "--output", str(output), *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=_listen_to_ctrl_c,
    )


def wait_for(what: Callable[[], Any]) -> Any:
    """What the function returns as soon as that is true."""
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def bundle_process(folder: Path) -> int | None:
    """The process that works in a run's folder, by its lock file."""
    lock = folder / ".run.lock.holder"
    found = re.match(r"process (\d+)", lock.read_text()) if lock.is_file() else None
    return int(found[1]) if found and is_alive(int(found[1])) else None


def is_alive(process: int) -> bool:
    state = Path(f"/proc/{process}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def manifest(output: Path) -> dict[str, Any]:
    return json.loads((output / "manifest.json").read_text())["runs"]


@dataclass(frozen=True)
class Interrupted:
    """A comparison that was killed while it trained, and then run to its end, as the test saw it."""

    output: Path
    phantom: Path
    plan: Plan
    state_when_killed: dict[str, Any]
    second_call: FolderInUseError
    failed: list[str]
