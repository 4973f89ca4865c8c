"""The error of a run that cannot be read, and numbers that may be missing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RunError", "mean_of_defined", "number"]


class RunError(ValueError):
    """A run folder that cannot be read; says which file, what was expected, what was got and what to do."""


def number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def mean_of_defined(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over classes, leaving out NaN (class absent) but not infinity (class missed)."""
    defined = ~np.isnan(table)
    count = defined.sum(axis=1)
    return np.where(count > 0, np.where(defined, table, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)
