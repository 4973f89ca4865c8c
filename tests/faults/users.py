"""Run commands as a user without home, entry in the list of users and rights on the installation; needs root's rights.

MONAI asks for the user's name when it is imported, and fails where there is none: ``LOGNAME`` gives it one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from commands import Command
from kills import Outcome, Victim, environment

FOREIGN = 54321
"""A user id that no machine knows."""


def may_become_foreign() -> bool:
    """Whether commands can be run as that user, with this interpreter."""
    if os.name != "posix" or os.geteuid():
        return False
    try:
        subprocess.run([sys.executable, "-c", "import torch"], user=FOREIGN, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def run_foreign(commands: Sequence[Command], workplace: Path, deadline: float) -> Iterator[Outcome]:
    """Run every command once as that user, with ``HOME=/nonexistent``, in a folder of theirs."""
    for command in commands:
        victim = Victim(command, workplace)
        if victim.is_late(deadline):
            return
        folder = victim.new_folder()
        for path in (folder, *folder.rglob("*")):
            os.chown(path, FOREIGN, FOREIGN)
        begin = time.monotonic()
        done = subprocess.run(
            command.call(folder, False),
            user=FOREIGN,
            group=FOREIGN,
            extra_groups=[],
            env={**environment(), "HOME": "/nonexistent", "LOGNAME": "foreign"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            outcome = f"ended with {done.returncode}: {done.stderr.strip().splitlines()[-2:]}"
        else:
            outcome = victim.compare(folder)
        yield victim.outcome(outcome, time.monotonic() - begin)
