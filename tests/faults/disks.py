"""Run commands on disks that are too small, then once more when there is room; needs the rights to mount a tmpfs."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from commands import Command, quiet
from kills import Outcome, Victim, environment

NAMED = ("no space left", "free")
"""What the message says, beside the path."""
_BLOCK = 4096


def may_mount(workplace: Path) -> bool:
    """Whether a tmpfs can be mounted here."""
    try:
        with disk(workplace / "tmpfs", 1 << 20):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def disk(folder: Path, size: int) -> Iterator[None]:
    """A tmpfs of ``size`` bytes at ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def run_disks(
    commands: Sequence[Command], workplace: Path, seed: int, times: int, deadline: float
) -> Iterator[Outcome]:
    """Run every command so many times on a disk with room for its inputs and a random share of what it writes."""
    share = random.Random(seed)
    for command in commands:
        victim = Victim(command, workplace)
        folder = victim.new_folder()
        inputs = _size(folder)
        quiet(command.call(folder, False), env=environment())
        written = max(_size(folder) - inputs, _BLOCK)
        for _ in range(times):
            if victim.is_late(deadline):
                return
            yield _full(victim, inputs, written, share.uniform(0, 0.95))


def _full(victim: Victim, inputs: int, written: int, share: float) -> Outcome:
    folder = victim.new_folder(filled=False)
    with disk(folder, inputs + int(share * written) // _BLOCK * _BLOCK + _BLOCK):
        victim.command.prepare(folder)
        done = subprocess.run(
            victim.command.call(folder, False), capture_output=True, text=True, env=environment(), check=False
        )
        outcome = "equal" if done.returncode == 0 else _told(done.stdout + done.stderr, folder)
        if outcome == "named":
            subprocess.run(["mount", "-o", f"remount,size={2 * (inputs + 4 * written)}", folder], check=True)
            try:
                quiet(victim.command.call(folder, True), env=environment())
                outcome = {"equal": "named"}.get(after := victim.compare(folder), after)
            except AssertionError as error:
                outcome = f"with room again: {error}"
        elif outcome == "equal":
            outcome = victim.compare(folder)
    return victim.outcome(outcome, share * victim.seconds)


def _told(text: str, folder: Path) -> str:
    for line in text.splitlines():
        if all(part in line for part in NAMED) and str(folder) in line:
            return "named"
    return f"not named: {text.strip().splitlines()[-3:]}"


def _size(folder: Path) -> int:
    """Bytes of the files and folders, in whole blocks."""
    paths = [folder, *folder.rglob("*")]
    return sum(-(-path.lstat().st_size // _BLOCK) * _BLOCK + _BLOCK * path.is_dir() for path in paths)
