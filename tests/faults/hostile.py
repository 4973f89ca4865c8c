"""Mutated inputs: each read in a process of its own, with bounds of time and memory, and what came of it."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from mutations import CANARY, Mutation, mutations_of
from readers import Reader, import_all

SECONDS = 60
BYTES = 3 * 2**30
"""Bounds of one reading: more is a hang or a bomb."""
_PARTIAL = (".partial", ".tmp", ".unfinished", ".unpacked")
_GOOD = ("same", "other", "named", "healed")


@dataclass(frozen=True)
class Read:
    """What came of one mutated input.

    ``outcome`` is ``same`` (as the whole input), ``other`` (the changed input is another valid one), ``healed`` (made
    again, with a warning that names it), ``named`` (one line that names the file); anything else is a fault, with
    ``told`` as its evidence.
    """

    reader: str
    kind: str
    mutation: str
    seed: int
    outcome: str
    told: str

    @property
    def good(self) -> bool:
        return self.outcome in _GOOD

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Prepared:
    """A reader with its good input and what that gives."""

    def __init__(self, reader: Reader, workplace: Path) -> None:
        self.reader = reader
        self.folder = Path(tempfile.mkdtemp(prefix=f"{reader.name}-", dir=workplace).replace(" ", "_"))
        self.folder.mkdir(exist_ok=True)
        self.good = self.folder / "good"
        self.good.mkdir()
        import_all()
        reader.prepare(self.good)
        self.expected = self._call(self.good)
        if self.expected[0] != "value" or self.expected[1] in (1, 2):
            raise AssertionError(f"{reader.name}: the good input fails: {self.expected}")

    def read(self, seed: int, mutation: str | None = None) -> Read:
        """Mutate one file with ``seed``, by the mutation of a name if it is given, read, and judge."""
        random = Random(seed)
        known = mutations_of(self.reader.kind.removeprefix("maps "))
        mutate = random.choice(known)
        if mutation is not None:
            mutate = next(one for one in known if _name(one) == mutation)
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(self.good, work)
        files = sorted(path for pattern in self.reader.files for path in work.glob(pattern))
        file = random.choice(files)
        before = file.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                changed = mutate(before, random)
            except Exception:  # a library refuses to write such a lie
                changed = before[: random.randrange(len(before))]
        file.write_bytes(changed)
        found = self._call(work)
        outcome, told = self._judge(found, file, work)
        return Read(self.reader.name, self.reader.kind, _name(mutate), seed, outcome, told)

    def _judge(self, found: tuple[str, Any, str], file: Path, work: Path) -> tuple[str, str]:
        how, value, said = found
        named = _names(said, file, work, self.reader.kind)
        if Path(CANARY).exists():
            Path(CANARY).unlink()
            return "code was run", said[-2000:]
        left = sorted(
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if any(part in path.name for part in _PARTIAL) and self.good not in path.parents
        )
        if left:
            return f"left behind: {left[0]}", said[-2000:]
        if how == "value" and value not in (1, 2):
            if value == self.expected[1]:
                return ("healed" if named and self.reader.heals else "same"), ""
            return ("healed, to something else", said[-2000:]) if self.reader.heals else ("other", "")
        if how in ("killed", "hung"):
            return how, said[-2000:]
        if how == "value" and (work / "out").exists():
            return "refused, and wrote", said[-2000:]
        if how == "raised" and "Traceback" in said:
            return "traceback", said[-3000:]
        return ("named", "") if named else ("not named", said[-2000:])

    def _call(self, folder: Path) -> tuple[str, Any, str]:
        """Call the reader in a fork: ``("value" | "raised" | "hung" | "killed", value, what it printed)``."""
        for name in ("out", "page.html", "page_tables", "out.nii.gz", "out.dcm"):
            target = folder / name
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        shutil.rmtree(folder.with_name("prepared"), ignore_errors=True)
        answer, printed = self.folder / "answer", self.folder / "printed"
        answer.unlink(missing_ok=True)
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            _in_child(lambda: self.reader.call(folder), answer, printed)
        deadline = time.monotonic() + SECONDS
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return "hung", None, printed.read_text(errors="replace")
            time.sleep(0.005)
        said = printed.read_text(errors="replace")
        if status or not answer.is_file():
            return "killed", status, said
        how, value, told = pickle.loads(answer.read_bytes())
        return how, value, said + told


def _in_child(call: Any, answer: Path, printed: Path) -> None:
    """Never returns."""
    status = 1
    try:
        os.setsid()
        with printed.open("wb") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        sys.stdout = os.fdopen(1, "w", closefd=False)  # the parent's may be captured
        sys.stderr = os.fdopen(2, "w", closefd=False)
        resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, 2**30))
        warnings.simplefilter("always")
        try:
            found = ("value", call(), "")
        except (OSError, ValueError, RuntimeError, FloatingPointError) as error:
            # of the last two are torch's and MONAI's own; a bundle shows the whole chain
            found = ("raised", type(error).__name__, _chain(error))
        except BaseException:
            found = ("raised", "traceback", traceback.format_exc())
        sys.stdout.flush()
        sys.stderr.flush()
        answer.write_bytes(pickle.dumps(found))
        status = 0
    finally:
        os._exit(status)


def _chain(error: BaseException | None) -> str:
    return "" if error is None else f"{type(error).__name__}: {error}\n{_chain(error.__cause__ or error.__context__)}"


def _name(mutation: Mutation) -> str:
    return mutation.__name__.replace("_", " ")


def _names(said: str, file: Path, work: Path, kind: str) -> bool:
    """Whether a message names the file, or the case it holds, or another file of the input that contradicts it."""
    if file.name in said:
        return True
    if kind in ("NIfTI", "picture") or kind.startswith("maps"):
        return file.name.partition(".")[0] in said
    others = [path.name for path in work.rglob("*") if path.is_file()]
    return kind in ("JSON", "table") and any(name in said for name in others)


def read_all(prepared: Sequence[Prepared], seed: int, deadline: float, at_most: int) -> Iterator[Read]:
    """Read mutated inputs in turn until time or number is up.

    Args:
        prepared: the readers.
        seed: of the first mutation; the others count on from it.
        deadline: by ``time.monotonic()``.
        at_most: inputs of each reader.
    """
    for number in range(at_most):
        for reader in prepared:
            if time.monotonic() > deadline:
                return
            yield reader.read(seed + number)
