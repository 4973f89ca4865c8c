"""Calibration against overlap: what a loss gains in one it may lose in the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .columns import Column
from .comparison import Comparison, Estimate
from .figures import Figure, axis, figure_csv, new_plot, plain, style
from .statistics import Interval

__all__ = ["overlap_scatter"]


def overlap_scatter(comparison: Comparison, estimates: Sequence[tuple[Estimate, Estimate]], column: Column) -> Figure:
    """Calibration against DSC, one mark a method, with both intervals.

    Args:
        comparison: its methods, in the order of ``estimates``.
        estimates: DSC and ``column`` of each method.
        column: of the vertical axis.
    """
    plot = new_plot(420, tallest=0.95, xaxis=axis("DSC"), yaxis=axis(column.label))
    rows: list[list[Any]] = []
    for method, (overlap, calibration) in zip(comparison.methods, estimates, strict=True):
        x, y = overlap.interval, calibration.interval
        look = style(method.place)
        plot["data"].append(
            {
                "type": "scatter",
                "x": [x.value],
                "y": [y.value],
                "error_x": _error_bar(x, look["line"]["color"]),
                "error_y": _error_bar(y, look["line"]["color"]),
                "mode": "markers",
                "marker": look["marker"] | {"size": 10},
                "name": plain(method.label),
                "legendgroup": plain(method.label),
                "hovertemplate": f"DSC %{{x:.3f}}, {plain(column.label)} %{{y:.4f}}",
            }
        )
        rows.append([method.label, *x, *y])
    columns = ["method", "DSC", "DSC low", "DSC high", *(f"{column.label}{end}" for end in ("", " low", " high"))]
    best = "lower" if column.lower_is_better else "upper"
    told = "; ".join(f"{row[0]}: DSC {row[1]:.3f}, {column.label} {row[4]:.3f}" for row in rows)
    return Figure(
        f"scatter-{column.key}",
        f"{column.label} against DSC",
        f"Bars are 95 % bootstrap intervals over subjects. The {best} right corner is best.",
        f"Scatter of {column.title} against DSC. {told}.",
        plot,
        figure_csv(columns, rows),
    )


def _error_bar(interval: Interval, colour: str) -> dict[str, Any]:
    value, low, high = interval
    known = math.isfinite(low) and math.isfinite(high)
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value if known else 0.0],
        "arrayminus": [value - low if known else 0.0],
        "color": colour,
        "thickness": 1.2,
        "width": 4,
        "visible": known,
    }
