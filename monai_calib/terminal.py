"""Colours on a terminal, and nowhere else.

A command's errors begin in red, what it warns of in yellow, and what it wrote is bold. In a file, a pipe and a log
there is the plain text, as on a terminal where ``NO_COLOR`` (https://no-color.org) is set.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from typing import Any, TextIO

__all__ = ["bold", "colour_warnings", "fail", "has_colours", "warned"]

_RED, _YELLOW, _BOLD = "31", "33", "1"


def has_colours(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows colours, to someone who wants them."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def _painted(text: object, style: str, stream: TextIO) -> str:
    return f"\033[{style}m{text}\033[0m" if has_colours(stream) else str(text)


def bold(text: object) -> str:
    """A path that was written, for the standard output."""
    return _painted(text, _BOLD, sys.stdout)


def warned(text: str) -> str:
    """A text for the standard output, whose lines may begin with ``Beware:``."""
    return re.sub(r"^Beware:", _painted("Beware:", _YELLOW, sys.stdout), text, flags=re.MULTILINE)


def fail(command: str, message: object) -> None:
    """Tell an error of a command on the error stream."""
    print(f"{_painted(f'{command}:', _RED, sys.stderr)} {message}", file=sys.stderr)


def colour_warnings() -> None:
    """Show warnings of Python with their kind in yellow, where the error stream has colours."""
    if has_colours(sys.stderr):
        warnings.showwarning = _show


def _show(
    message: Any,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    stream, kind = file or sys.stderr, category.__name__
    text = warnings.formatwarning(message, category, filename, lineno, line)
    stream.write(text.replace(f"{kind}:", _painted(f"{kind}:", _YELLOW, stream), 1))
