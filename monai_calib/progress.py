"""Progress of a loop: how many, at what rate, and the time left; one line of a terminal, now and then one in a log."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from typing import Protocol, TextIO, TypeVar

from .words import in_words

__all__ = ["Counted", "LastLine", "Progress", "with_progress"]

_TERMINAL_SECONDS = 0.2
_LOG_SECONDS = 30.0
Item = TypeVar("Item")
Given = TypeVar("Given", covariant=True)


class Counted(Protocol[Given]):
    """Items that are counted and given one by one; they need not all be held."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Given]: ...


class LastLine:
    """On a terminal one line that is renewed, cut to its width; elsewhere lines, one after the other.

    Args:
        stream: where to write.

    Attributes:
        terminal: whether it is one.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.terminal = stream.isatty()

    def renew(self, text: str) -> None:
        """Write the line in place of the last."""
        if self.terminal:
            self.stream.write(f"\r\033[K{text[: shutil.get_terminal_size().columns - 1]}")
        else:
            self.stream.write(f"{text}\n")
        self.stream.flush()

    def clear(self) -> None:
        """Leave nothing on a terminal's line."""
        if self.terminal:
            self.stream.write("\r\033[K")
            self.stream.flush()


class Progress:
    """Tell how many are done, on the error stream; on a terminal one line that is renewed, and goes in the end.

    Args:
        unit: what is counted, in the singular.
        stream: where to write; the error stream if not given.

    Example:
        >>> Progress("case", sys.stdout).line(10, 40, seconds=20.0)
        '10/40 cases, 2.0 s a case, about 60 s left'
        >>> Progress("case", sys.stdout).line(100, 1100, seconds=10.0)
        '100/1100 cases, 10 cases a second, about 2 min left'
    """

    def __init__(self, unit: str = "case", stream: TextIO | None = None) -> None:
        self.unit = unit
        self._line = LastLine(stream or sys.stderr)
        self._began = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Tell that so many are done, if it was not told just now; the last one is told by what the command says."""
        now = time.monotonic()
        if done < total and now - self._last >= (_TERMINAL_SECONDS if self._line.terminal else _LOG_SECONDS):
            self._last = now
            self._line.renew(self.line(done, total, now - self._began))

    def clear(self) -> None:
        """Leave nothing on a terminal's line."""
        self._line.clear()

    def line(self, done: int, total: int, seconds: float) -> str:
        """Return the words for so many done in so many seconds."""
        each = seconds / done
        rate = f"{each:.1f} s a {self.unit}" if each >= 1 else f"{done / seconds:.3g} {self.unit}s a second"
        return f"{done}/{total} {self.unit}s, {rate}, about {in_words((total - done) * each)} left"


def with_progress(items: Counted[Item], unit: str = "case", stream: TextIO | None = None) -> Iterator[Item]:
    """Give the items, one after the other, and tell how far they are.

    Example:
        >>> list(with_progress([1, 2, 3]))
        [1, 2, 3]
    """
    progress = Progress(unit, stream)
    source = iter(items)
    try:
        for done in range(1, len(items) + 1):
            yield next(source)  # under no name here: a volume is to go before the next is read
            progress(done, len(items))
    finally:
        progress.clear()
