"""Spread of a metric over cases, for each method and each class: a mean hides the case that went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import Column
from .comparison import Comparison, Method
from .figures import Figure, axis, figure_csv, new_plot, plain, style, transparent

__all__ = ["class_distribution", "distribution"]

# More points than this make a page slow; then those far from the box stand for all.
MOST_POINTS = 4000
# With more methods than this a figure gets the width of the page.
FEW = 8
NARROWEST = 420


def distribution(comparison: Comparison, column: Column, note: str = "") -> Figure:
    """A figure's spread over cases: box and every case, one row a method; cases are means over seeds."""
    number = len(comparison.methods)
    plot = new_plot(
        120 + (44 if number <= FEW else 28) * number,
        narrowest=None if number <= FEW else NARROWEST,
        xaxis=axis(column.heading),
        yaxis={"autorange": "reversed", "automargin": True},
        showlegend=False,
    )
    rows: list[list[Any]] = []
    told: list[str] = []
    for method in comparison.methods:
        values = comparison.case_values(method.runs, column)
        plot["data"].append(
            _box(method, values, [plain(method.label)] * len(values), comparison.cases, number * len(values))
        )
        rows.extend([method.label, case, value] for case, value in zip(comparison.cases, values, strict=True))
        told.append(_quartiles(method.label, values))
    return Figure(
        f"cases-{column.key}",
        f"{column.label} per case",
        "Every point is a case (mean over seeds); the box spans the quartiles, its line is the median." + note,
        f"Box plot of {column.title} per case. {'; '.join(told)}.",
        plot,
        figure_csv(["method", "case", column.label], rows),
        (tuple(method.label for method in comparison.methods), tuple(comparison.cases)),
    )


def class_distribution(comparison: Comparison, column: Column) -> Figure | None:
    """A figure's spread over cases for each class, or None if it has no figure a class."""
    tables = [comparison.class_values(method.runs, column) for method in comparison.methods]
    present = [table for table in tables if table is not None]
    if not present:
        return None
    measured = [k for k in range(len(comparison.class_names)) if any(np.isfinite(t[:, k]).any() for t in present)]
    height = 130 + len(measured) * (24 + (24 if len(present) <= FEW else 16) * len(comparison.methods))
    plot = new_plot(
        height,
        narrowest=None if len(present) <= FEW else NARROWEST,
        xaxis=axis(column.heading),
        yaxis={"autorange": "reversed", "automargin": True},
        boxmode="group",
    )
    rows: list[list[Any]] = []
    told: list[str] = []
    drawn: list[str] = []
    names = [comparison.class_names[k] for k in measured for _ in comparison.cases]
    cases = [case for _ in measured for case in comparison.cases]
    for method, table in zip(comparison.methods, tables, strict=True):
        if table is None:
            continue
        drawn.append(method.label)
        values = table[:, measured].T.ravel()
        plot["data"].append(_box(method, values, [plain(name) for name in names], cases, len(present) * len(values)))
        rows.extend([method.label, *rest] for rest in zip(names, cases, values, strict=True))
        told.extend(_quartiles(f"{method.label}, {comparison.class_names[k]}", table[:, k]) for k in measured)
    return Figure(
        f"classes-{column.key}",
        f"{column.label} per class",
        "Every point is a case (mean over seeds). Classes absent from a case have no point.",
        f"Box plot of {column.title} per class. {'; '.join(told)}.",
        plot,
        figure_csv(["method", "class", "case", column.label], rows),
        (tuple(drawn), tuple(comparison.class_names[k] for k in measured), tuple(comparison.cases)),
    )


def _box(
    method: Method, values: NDArray[np.float64], rows: Sequence[str], cases: Sequence[str], points: int
) -> dict[str, Any]:
    colour = style(method.place)["line"]["color"]
    return {
        "type": "box",
        "x": values,
        "y": rows,
        "orientation": "h",
        "text": [plain(case) for case in cases],
        "hovertemplate": "%{text}: %{x:.4f}<extra></extra>",
        "name": plain(method.label),
        "legendgroup": plain(method.label),
        "boxpoints": "all" if points <= MOST_POINTS else "suspectedoutliers",
        "jitter": 0.55,
        "pointpos": 0,
        "fillcolor": "rgba(0,0,0,0)" if method.place[1] else transparent(method.place, 0.14),
        "line": {"color": colour, "width": 1.4},
        "marker": {"color": colour, "size": 3.5, "opacity": 0.55},
    }


def _quartiles(label: str, values: NDArray[np.float64]) -> str:
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return f"{label}: no value"
    low, middle, high = np.quantile(finite, [0.25, 0.5, 0.75])
    return f"{label}: median {middle:.3f}, quartiles {low:.3f} to {high:.3f}"
