"""The error of a run that cannot be read, and numbers that may be missing."""

from __future__ import annotations

from typing import Any

__all__ = ["RunError", "number"]


class RunError(ValueError):
    """A run folder that cannot be read; says which file, what was expected, what was got and what to do."""


def number(value: Any) -> float:
    return float("nan") if value is None else float(value)
