"""Carries out a plan: skips what is finished, resumes what was interrupted, repeats what failed, and keeps count."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from monai_calib.lock import FolderLock
from monai_calib.words import counted, in_words

from .folders import missing_steps, training_record
from .manifest import Manifest, now
from .perform import Event
from .plan import Plan, Run
from .progress import Progress
from .results import write_results
from .workers import Workers

__all__ = ["run_benchmark"]

_MOST_LOSSES = 10
"""How often a run may lose its worker, which is no fault of its own, before it counts as failed."""


def run_benchmark(
    plan: Plan, make_workers: Callable[[], Workers], retries: int = 1, stream: TextIO | None = None
) -> list[Run]:
    """Carries out what the plan's folder lacks, and writes ``results.json``.

    Args:
        plan: the runs.
        make_workers: called when there is something to do.
        retries: how often a failed run is repeated, in this call.
        stream: where progress is shown; standard output if not given.

    Returns: the runs that failed; the others are done.
    Raises:
        FolderInUseError: another comparison works in the plan's folder.
        MismatchError: a folder there was made with other settings.
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM, after its processes were ended.
    """
    with FolderLock(plan.output, "benchmark"):
        manifest = Manifest(plan)
        unfinished = []
        for run in plan.runs:
            finished = not missing_steps(run, manifest[run].trained)
            # An entry that is still "running" was left by a comparison that was killed: the lock is ours.
            manifest[run].state = "done" if finished else "waiting"
            if finished:
                _keep_training_time(run, manifest)
            else:
                unfinished.append(run)
        manifest.write()
        if unfinished:
            dispatch = _Dispatch(manifest, make_workers(), retries, stream)
            with _terminated_like_ctrl_c():
                dispatch.carry_out(unfinished)
        write_results(plan, manifest)
        return [run for run in plan.runs if manifest[run].state == "failed"]


class _Dispatch:
    """Hands runs to workers and writes down what becomes of them."""

    def __init__(self, manifest: Manifest, workers: Workers, retries: int, stream: TextIO | None) -> None:
        self.manifest = manifest
        self.workers = workers
        self.retries = retries
        self.progress = Progress(manifest, workers.places, stream)
        self.failures: Counter[str] = Counter()
        self.losses: Counter[str] = Counter()

    def carry_out(self, runs: list[Run]) -> None:
        by_key = {run.key: run for run in runs}
        total = counted(len(self.manifest.plan.runs), "run")
        self.progress.say(f"{len(runs)} of {total} to do, {self.workers.places} at a time")
        try:
            for run in runs:
                self.workers.submit(run, self.manifest[run].trained)
            while any(self.manifest[run].state in ("waiting", "running") for run in runs):
                self.progress.places = self.workers.places
                happened = self.workers.next_event(timeout=1.0)
                if happened is not None:
                    self._note(by_key[happened[0]], happened[1])
                self.progress.tick()
        except BaseException:
            self.workers.stop()
            for run in runs:
                if self.manifest[run].state == "running":
                    self.manifest.update(run, state="waiting", end=now())
            raise
        finally:
            self.progress.clear()
        self.workers.stop()

    def _note(self, run: Run, event: Event) -> None:
        entry = self.manifest[run]
        if event.kind == "started":
            self.manifest.update(
                run, state="running", attempts=entry.attempts + 1, start=now(), end=None, host=event.name, error=[]
            )
            self.progress.started(run)
        elif event.kind == "step":
            trained = event.name == "train"
            self.manifest.update(run, seconds=entry.seconds + event.seconds, trained=entry.trained or trained)
            if trained:
                _keep_training_time(run, self.manifest)
            self.progress.step(run, event.name, event.seconds)
        elif event.kind == "done":
            self.manifest.update(run, state="done", end=now(), error=[])
            self.progress.ended(run, f"done, {in_words(entry.seconds)}")
        elif event.kind == "lost":
            self.losses[run.key] += 1
            self._again(run, event, self.losses[run.key] <= _MOST_LOSSES)
        else:
            self.failures[run.key] += 1
            self._again(run, event, self.failures[run.key] <= self.retries)

    def _again(self, run: Run, event: Event, repeat: bool) -> None:
        lines = list(event.lines)
        self.manifest.update(run, state="waiting" if repeat else "failed", end=now(), error=lines)
        reason = lines[0] if lines else event.kind
        self.progress.ended(run, f"{reason}; {'to be repeated' if repeat else 'given up'}")
        if repeat:
            self.workers.submit(run, self.manifest[run].trained)


def _keep_training_time(run: Run, manifest: Manifest) -> None:
    seconds = training_record(run).get("seconds")
    if seconds is not None:
        manifest.update(run, training_seconds=round(float(seconds), 1))


@contextmanager
def _terminated_like_ctrl_c() -> Iterator[None]:
    """A scheduler ends its jobs by SIGTERM, a closed terminal by SIGHUP: both stop the children first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
