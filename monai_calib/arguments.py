"""Arguments on the command line, whose mistakes end a call before it begins."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from .terminal import fail

__all__ = ["Parser", "truth", "whole"]


class Parser(argparse.ArgumentParser):
    """A parser whose errors begin in red, on a terminal; so do those of its commands."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        fail(self.prog, f"error: {message}")
        self.exit(2)


def whole(least: int = 1) -> Callable[[str], int]:
    """Return the type of a whole number that is not too small.

    Example:
        >>> whole()("3")
        3
        >>> whole(0)("-1")
        Traceback (most recent call last):
        argparse.ArgumentTypeError: expected a whole number from 0, got '-1'
    """

    def read(text: str) -> int:
        if not text.strip().lstrip("+-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least}, got {text!r}")
        return int(text)

    return read


def truth(text: str) -> bool:
    """Return what True or False, in small or capital letters, says."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected True or False, got {text!r}")
    return text.lower() == "true"
