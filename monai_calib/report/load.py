"""Evaluated folders as one long table."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_calib.metrics.evaluated import read_evaluated

from .comparison import compare
from .page import require_extra
from .runs import Run, read_runs

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["load"]

COLUMNS = (
    *("method", "seed", "split", "correction", "case", "subject"),
    *("metric", "name", "region", "bins", "class", "value"),
)


def load(folders: str | PathLike[str] | Iterable[str | PathLike[str]]) -> pd.DataFrame:
    """Read evaluated folders into a long table: one row per run, case, metric and class.

    Columns: ``method`` (as the report calls it: loss, settings that tell methods apart, correction), ``seed``,
    ``split``, ``correction`` ("" as trained), ``case``, ``subject``, ``metric`` (the kind: "ece", "nll", "dice" ...),
    ``name`` (the metric's unique name), ``region`` and ``bins`` (missing where the metric has none), ``class`` (missing
    for one value per case), ``value`` (NaN where undefined).

    Args:
        folders: run folders, or folders of them, as ``python -m monai_calib report`` takes them.

    Raises: :class:`~.runs.RunError` for a folder without evaluation or a damaged one; ``ModuleNotFoundError``
        without the extra ``report``.

    Example:
        >>> table = load("runs")                                                            # doctest: +SKIP
        >>> whole = table[(table.metric == "ece") & (table.region == "all")]                # doctest: +SKIP
        >>> whole.groupby(["method", "subject"]).value.mean().groupby("method").mean()      # doctest: +SKIP
    """
    require_extra()
    import pandas as pd

    named = [folders] if isinstance(folders, (str, PathLike)) else list(folders)
    rows = []
    for comparison in compare(read_runs(Path(folder) for folder in named)):
        for method in (*comparison.methods, *comparison.failed):
            for run in (*method.runs, *method.failed):
                rows += _rows(method.label, run)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({"bins": "Int64", "value": "float64"})


def _rows(method: str, run: Run) -> list[tuple[Any, ...]]:
    correction = str(run.settings.get("posthoc", ""))
    rows: list[tuple[Any, ...]] = []
    evaluated = read_evaluated(run.evaluation)
    for name in run.values:
        metric = run.metrics[name]
        what = (metric.kind, name, metric.region, metric.bins)
        for case, subject, values in zip(run.cases, run.subjects, evaluated.class_values(name), strict=True):
            whose = (method, run.seed, run.split, correction, case, subject)
            labels = metric.classes or (None,)
            rows += [(*whose, *what, label, float(value)) for label, value in zip(labels, values, strict=True)]
    return rows
