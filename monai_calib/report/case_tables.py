"""The figures of every case: those of calibration.json, and the raw tables of overlap and surface distance."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RunError", "case_figures", "mean_of_defined", "number", "raw_table"]


class RunError(ValueError):
    """A run folder that cannot be read; says which file, what was expected, what was got and what to do."""


def number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def case_figures(
    rows: Sequence[Mapping[str, Any]], num_classes: int
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """Figures of one number a case, and those of one number a class, whose mean over defined classes is the case's."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    values, class_values = {}, {}
    for key in keys:
        column = [row.get(key) for row in rows]
        if any(isinstance(value, list) and len(value) == num_classes for value in column):
            undefined = [None] * num_classes
            table = [[number(x) for x in (value if isinstance(value, list) else undefined)] for value in column]
            class_values[key] = np.array(table)
            values[key] = mean_of_defined(class_values[key])
        else:
            flat = [value[0] if isinstance(value, list) and value else value for value in column]
            values[key] = np.array([number(value) for value in flat])
    return values, class_values


def mean_of_defined(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over classes, leaving out NaN (class absent) but not infinity (class missed)."""
    defined = ~np.isnan(table)
    count = defined.sum(axis=1)
    return np.where(count > 0, np.where(defined, table, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)


def raw_table(folder: Path, pattern: str, cases: Sequence[str], num_classes: int) -> NDArray[np.float64] | None:
    """Rows of a ``<metric>_raw.csv`` of MONAI's MetricsSaver, in the order of ``cases``, background as NaN."""
    paths = sorted(path for path in folder.glob(pattern) if "surface" not in path.name)
    if not paths:
        return None
    path = paths[0]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file))
        figures = {_case_id(row[0]): [float(x) for x in row[1 : len(header) - 1]] for row in rows if row}
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is not a table of MetricsSaver: {error}. Evaluate the run again.") from error
    missing = [case for case in cases if case not in figures]
    if missing:
        raise RunError(
            f"{path} lacks {len(missing)} of the {len(cases)} cases of calibration.json, the first {missing[0]!r}. "
            "Both must come from the same evaluation; evaluate the run again."
        )
    table = np.array([figures[case] for case in cases], dtype=np.float64)
    if table.ndim != 2 or table.shape[1] not in (num_classes, num_classes - 1):
        raise RunError(f"{path}: expected a column for each of {num_classes} classes, with or without background.")
    foreground = table[:, -(num_classes - 1) :]
    return np.concatenate([np.full((len(cases), 1), np.nan), foreground], axis=1)


def _case_id(path: str) -> str:
    """The name the handlers give the case of an image file: without folder and extension."""
    name = Path(path.replace("\\", "/")).name.removesuffix(".gz")
    return name.rsplit(".", 1)[0] if "." in name[1:] else name
