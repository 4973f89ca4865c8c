"""Kill commands at random moments with SIGKILL, call them again, and compare with the result of an unkilled call."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from commands import Command, quiet

LEFT_BEHIND = (".partial", ".tmp", ".former", ".unfinished")


@dataclass(frozen=True)
class Outcome:
    """The end of one kill: ``"equal"`` is the only good one; ``"finished before the kill"`` was none."""

    command: str
    seconds: float
    of_seconds: float
    outcome: str

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": round(self.seconds, 2), "of_seconds": round(self.of_seconds, 2)}


class Victim:
    """A command with its unkilled result and the time that took."""

    def __init__(self, command: Command, workplace: Path) -> None:
        self.command = command
        self.workplace = workplace
        folder = self.new_folder()
        begin = time.monotonic()
        quiet(command.call(folder, False), env=environment())
        self.seconds = time.monotonic() - begin
        self.expected = dict(command.result(folder))
        if not self.expected:
            raise AssertionError(f"{command.name}: the unkilled call left no result")
        self.files = _names(folder)

    def kill_once(self, random_moment: random.Random, number: int) -> Outcome:
        """Kill the command after a random share of its time, call it again, and compare."""
        folder = self.new_folder()
        # Half of the kills fall into the last third, where results are written.
        share = random_moment.uniform(0.15, 1.05) if random_moment.random() < 0.5 else random_moment.uniform(0.6, 1.05)
        after = share * self.seconds
        with subprocess.Popen(
            self.command.call(folder, False),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
            start_new_session=True,
        ) as process:
            try:
                process.wait(timeout=after)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        if process.returncode == 0:
            return Outcome(self.command.name, after, self.seconds, "finished before the kill")
        try:
            if not self.command.refuses_again or self.compare(folder) != "equal":
                quiet(self.command.call(folder, True), env=environment())
            outcome = self.compare(folder)
        except Exception as error:  # whatever went wrong is the outcome
            outcome = f"{type(error).__name__}: {error}"
        if outcome != "equal":
            shutil.move(folder, folder.with_name(f"failed_{number}_{os.getpid()}"))
        return Outcome(self.command.name, after, self.seconds, outcome)

    def compare(self, folder: Path) -> str:
        """``"equal"`` to the unkilled result, or what differs or was left behind."""
        found = dict(self.command.result(folder))
        left = sorted(name for name in _names(folder) if any(part in name for part in LEFT_BEHIND))
        if left:
            return f"left behind: {', '.join(left[:5])}"
        different = sorted(
            name for name in self.expected.keys() | found.keys() if self.expected.get(name) != found.get(name)
        )
        return f"different: {', '.join(different[:5])}" if different else "equal"

    def new_folder(self, filled: bool = True) -> Path:
        """A new folder with what the command needs, or an empty one."""
        folder = self.workplace / self.command.name / "work"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if filled:
            self.command.prepare(folder)
        return folder

    def outcome(self, outcome: str, seconds: float) -> Outcome:
        """What became of a call of this command."""
        return Outcome(self.command.name, seconds, self.seconds, outcome)

    def is_late(self, deadline: float) -> bool:
        """Whether another two calls would end after ``deadline``, by ``time.monotonic()``."""
        return time.monotonic() + 2 * self.seconds > deadline


def kill_all(
    victims: Sequence[Command], workplace: Path, seed: int, deadline: float, at_most: int
) -> Iterator[Outcome]:
    """Kill the commands in turn until the time or the number is up.

    Args:
        victims: the commands.
        workplace: a folder for their work.
        seed: of the moments.
        deadline: by ``time.monotonic()``.
        at_most: kills of each command.
    """
    moment = random.Random(seed)
    ready = [Victim(command, workplace) for command in victims]
    for number in range(at_most):
        for victim in ready:
            if time.monotonic() > deadline:
                return
            outcome = victim.kill_once(moment, number)
            if outcome.outcome != "finished before the kill":
                yield outcome


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def environment() -> dict[str, str]:
    """One thread a process, no warnings."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
