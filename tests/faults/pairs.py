"""Start a command twice on one folder: one of the two writes the result, the other is refused with a line."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from commands import Command
from kills import Outcome, Victim, environment

REFUSED = "is in use by process"
"""What the line says of the two that comes later."""


def run_pairs(
    commands: Sequence[Command], workplace: Path, seed: int, times: int, deadline: float
) -> Iterator[Outcome]:
    """Run every command twice at once, so many times, the second up to a third of the command's time later."""
    moment = random.Random(seed)
    for command in commands:
        victim = Victim(command, workplace)
        for _ in range(times):
            if victim.is_late(deadline):
                return
            yield _pair(victim, moment.uniform(0, 0.3) * victim.seconds)


def _pair(victim: Victim, later: float) -> Outcome:
    folder = victim.new_folder()
    call = victim.command.call(folder, False)
    logs = [folder.with_name(f"stderr_{number}") for number in (1, 2)]
    first = _start(call, logs[0])
    with suppress(subprocess.TimeoutExpired):
        first.wait(later)
    second = _start(call, logs[1])
    for process in (first, second):
        process.wait(20 * victim.seconds + 60)
    told = [log.read_text(errors="replace") for log in logs]
    failed = [text for process, text in zip((first, second), told, strict=True) if process.returncode]
    refused = [text for text in failed if REFUSED in text or (victim.command.refuses_again and str(folder) in text)]
    outcome = victim.compare(folder)
    if outcome == "equal":
        outcome = "in turn" if not failed else "one refused" if len(refused) == len(failed) == 1 else ""
    if not outcome:
        outcome = f"{len(failed)} of 2 failed: {failed[-1].strip().splitlines()[-1:]}"
    return victim.outcome(outcome, later)


def _start(call: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as told:
        return subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=told, env=environment(), start_new_session=True)
