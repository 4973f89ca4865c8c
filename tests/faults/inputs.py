"""Give damaged files to the readers of the package: each ends in a result or in an error that names the file."""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Input", "Judged", "judge", "mutate_all"]

SECONDS = 60
BYTES = 6 * 2**30
GOOD = ("result", "named")
ACCEPTED = (ValueError, OSError, RuntimeError, ModuleNotFoundError, FloatingPointError)


@dataclass(frozen=True)
class Input:
    """A kind of file and its reader.

    Attributes:
        kind: as the tally calls it.
        make: writes a sound file below a new folder and returns the file to damage.
        change: the file's content to a damaged one, and a word for it.
        read: reads the folder as the package does; takes the folder and the file.
    """

    kind: str
    make: Callable[[Path], Path]
    change: Callable[[bytes, random.Random], tuple[bytes, str]]
    read: Callable[[Path, Path], object]


@dataclass(frozen=True)
class Judged:
    """One damaged file and its end: ``"result"`` and ``"named"`` are good ones."""

    kind: str
    change: str
    outcome: str
    message: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(read: Callable[[], object], names: tuple[str, ...]) -> tuple[str, str]:
    """The end of a reader in a process of its own, bounded in time and memory.

    Returns: ``"result"``; ``"named"``, an error that holds one of ``names``; ``"unnamed"``; ``"traceback"``, an error
        of a kind that commands do not turn into one line; ``"hang"``; ``"crash"``; each with its message.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
        signal.alarm(SECONDS)
        try:
            read()
            told = "result\n"
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
            if isinstance(error, SystemExit):
                told = f"traceback\nended with {error.code}"
            elif not isinstance(error, ACCEPTED):
                told = f"traceback\n{text}\n{traceback.format_exc()[-1500:]}"
            else:
                told = f"{'named' if any(name in text for name in names) else 'unnamed'}\n{text}"
        os.write(writing, told.encode(errors="replace")[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        by = os.WTERMSIG(status)
        return ("hang" if by == signal.SIGALRM else "crash"), f"signal {by}"
    outcome, _, message = told.partition("\n")
    return outcome or "crash", message


def mutate_all(inputs: list[Input], workplace: Path, seed: int, number: int) -> Iterator[Judged]:
    """Damage each kind of file ``number`` times and judge its reader."""
    rng = random.Random(seed)
    for item in inputs:
        folder = workplace / item.kind.replace(" ", "_")
        folder.mkdir(parents=True)
        file = item.make(folder)
        sound = file.read_bytes()
        outcome, message = judge(lambda: item.read(folder, file), (file.name,))  # noqa: B023  # called at once
        if outcome != "result":
            raise AssertionError(f"{item.kind}: the sound file gives {outcome}: {message}")
        for _ in range(number):
            changed, word = item.change(sound, rng)
            file.write_bytes(changed)
            names = (file.name, file.name.partition(".")[0])
            outcome, message = judge(lambda: item.read(folder, file), names)  # noqa: B023
            proofs = [path.name for path in workplace.rglob("proof*")]
            if proofs:
                outcome = f"code was run or a file written outside: {proofs}"
            yield Judged(item.kind, word, outcome, "" if outcome in GOOD else message)
        file.write_bytes(sound)


def command(*arguments: str) -> None:
    """A command of the package in this process; a non-zero end raises its one line."""
    import contextlib
    import io

    from monai_calib.__main__ import main

    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        status = main(arguments)
    if status:
        raise ValueError(errors.getvalue())


if __name__ == "__main__":
    sys.exit("run.py uses this file")
