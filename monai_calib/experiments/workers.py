"""Who carries the runs out; here, threads of this process that start bundle processes."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import threading
from typing import Protocol

from .perform import Children, Event, Stopped, perform, run_environment
from .plan import Run

__all__ = ["LocalWorkers", "Workers", "available_cores", "place_environments", "visible_gpus"]


class Workers(Protocol):
    """Takes runs and tells what becomes of them."""

    @property
    def places(self) -> int:
        """Number of runs carried out side by side."""

    def submit(self, run: Run, trained: bool) -> None:
        """Puts a run in the queue; ``trained`` as for :func:`.folders.missing_steps`."""

    def next_event(self, timeout: float) -> tuple[str, Event] | None:
        """The next event with its run's key, or None after ``timeout`` seconds without one."""

    def stop(self) -> None:
        """Ends what is under way."""


class LocalWorkers:
    """Carries runs out on this machine, ``jobs`` side by side, and shares cores and GPUs among them.

    Args:
        jobs: runs side by side. Each gets an equal share of the cores, and one of the GPUs in turn.
    """

    def __init__(self, jobs: int) -> None:
        self.places = jobs
        self._children = Children()
        self._waiting: queue.SimpleQueue[tuple[Run, bool] | None] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[tuple[str, Event]] = queue.SimpleQueue()
        for environment in place_environments(jobs):
            threading.Thread(target=self._work, args=(environment,), daemon=True).start()

    def submit(self, run: Run, trained: bool) -> None:
        self._waiting.put((run, trained))

    def next_event(self, timeout: float) -> tuple[str, Event] | None:
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            return None

    def stop(self) -> None:
        self._children.stop()
        for _ in range(self.places):
            self._waiting.put(None)

    def _work(self, environment: dict[str, str]) -> None:
        while (submitted := self._waiting.get()) is not None:
            run, trained = submitted
            try:
                for event in perform(run, environment, self._children, trained):
                    self._events.put((run.key, event))
            except Stopped:
                return
            except Exception as error:  # a thread that ends in silence would leave its run running for ever
                self._events.put((run.key, Event("failed", lines=(f"{type(error).__name__}: {error}",))))


def place_environments(jobs: int) -> list[dict[str, str]]:
    """The environment of the bundle processes of each place: its share of the cores, and a GPU in turn."""
    gpus = visible_gpus()
    environments = [run_environment(max(1, available_cores() // jobs)) for _ in range(jobs)]
    if gpus:
        for place, environment in enumerate(environments):
            environment["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]
    return environments


def available_cores() -> int:
    """Cores this process may use, which in a container or under a scheduler are not all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The GPUs for this process, as CUDA_VISIBLE_DEVICES names them; asks the driver, so that torch stays out."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu.strip() for gpu in named.split(",") if gpu.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True
    )
    return listed.stdout.split() if listed.returncode == 0 else []
