"""Messages of a comparison while it runs: a line whenever a run starts or ends, and the time left."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from monai_calib.progress import LastLine
from monai_calib.words import in_words

from .folders import epochs_done
from .manifest import Manifest
from .plan import Run

__all__ = ["Progress"]

_QUIET_SECONDS = 300.0
_FEW_RUNS = 5


class Progress:
    """Lines for a log; on a terminal a last line beside them that is renewed.

    Args:
        manifest: the state of the runs.
        places: runs carried out side by side.
        stream: where to write; standard output if not given.
    """

    def __init__(self, manifest: Manifest, places: int, stream: TextIO | None = None) -> None:
        self.manifest = manifest
        self.places = places
        self.stream = stream or sys.stdout
        self._line = LastLine(self.stream)
        self._began: dict[str, float] = {}
        self._last = time.monotonic()

    def started(self, run: Run) -> None:
        self._began[run.key] = time.monotonic()
        self.say(f"{run.key}: started")

    def step(self, run: Run, name: str, seconds: float) -> None:
        """Tell of a step that ended, where runs are so few that a step is news."""
        if len(self.manifest.plan.runs) <= _FEW_RUNS:
            self.say(f"{run.key}: {name} done, {in_words(seconds)}")

    def ended(self, run: Run, message: str) -> None:
        self._began.pop(run.key, None)
        left = self.seconds_left()
        self.say(f"{run.key}: {message}" + (f"; about {in_words(left)} left" if left else ""))

    def say(self, text: str) -> None:
        """One line, with how far the comparison is."""
        self._line.clear()
        self.stream.write(f"[{self._count('done')}/{len(self.manifest.plan.runs)}] {text}\n")
        self._last = 0.0 if self._line.terminal else time.monotonic()
        self.tick()
        self.stream.flush()

    def tick(self) -> None:
        """Renews the last line of a terminal; elsewhere says something every few minutes."""
        elapsed = time.monotonic() - self._last
        if elapsed < (1.0 if self._line.terminal else _QUIET_SECONDS):
            return
        self._last = time.monotonic()
        self._line.renew(f"[{self._count('done')}/{len(self.manifest.plan.runs)}] {self.standing()}")

    def clear(self) -> None:
        """Leaves the last line of a terminal empty."""
        self._line.clear()

    def standing(self) -> str:
        """Progress of the runs under way, and the time left."""
        under_way = [run for run in self.manifest.plan.runs if run.key in self._began]
        parts = [f"{run.loss.key} seed {run.seed} epoch {epochs_done(run)}/{run.epochs}" for run in under_way]
        left = self.seconds_left()
        return "; ".join([*parts, "time left not known yet" if left is None else f"about {in_words(left)} left"])

    def seconds_left(self) -> float | None:
        """Over all runs that are not over, from how long runs of the same bundle and network took; None at first."""
        left = 0.0
        for run in self.manifest.plan.runs:
            if self.manifest[run].state in ("done", "failed"):
                continue
            expected = self._expected(run.group)
            if expected is None:
                return None
            elapsed = time.monotonic() - self._began[run.key] if run.key in self._began else 0.0
            left += max(0.0, expected - elapsed)
        return left / max(1, self.places)

    def _expected(self, group: str) -> float | None:
        runs = [run for run in self.manifest.plan.runs if run.group == group]
        entries = [self.manifest[run] for run in runs]
        took = [entry.seconds for entry in entries if entry.state == "done" and entry.trained]
        if took:
            return sum(took) / len(took)
        epochs = [(run, epochs_done(run)) for run in runs if run.key in self._began]
        guesses = [(time.monotonic() - self._began[run.key]) * run.epochs / done for run, done in epochs if done]
        return max(guesses, default=None)

    def _count(self, state: str) -> int:
        return sum(self.manifest[run].state == state for run in self.manifest.plan.runs)
