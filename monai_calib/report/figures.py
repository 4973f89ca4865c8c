"""The report's figures, each with its data as CSV and a description in words for those who do not see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .comparison import Comparison, Estimate, Measure, Method
from .statistics import Ranking, cliques
from .tables import csv_text

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["COLOURS", "Figure", "class_distribution", "distribution", "overlap_scatter", "ranking_diagram"]

# Told apart by the colour-blind; each has a contrast of 3:1 or more on the page's light and dark grounds.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#2A95CE", "#C48600", "#8E63B8", "#7F7F7F")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star")
_DASHES = ("solid", "dash", "dot", "dashdot")
NEUTRAL = "#808080"


@dataclass(frozen=True)
class Figure:
    """A Plotly figure with what a page needs around it: title, how to read it, what it shows in words, its data."""

    key: str
    title: str
    caption: str
    alt: str
    plot: go.Figure
    csv: str


def style(index: int) -> dict[str, Any]:
    """Line and marker of the ``index``-th method; past eight methods, open symbols and dashes tell them apart."""
    colour = COLOURS[index % len(COLOURS)]
    filling = "-open" if index // len(COLOURS) % 2 else ""
    return {
        "line": {"color": colour, "width": 2, "dash": _DASHES[index // len(COLOURS) % len(_DASHES)]},
        "marker": {"color": colour, "symbol": _SYMBOLS[index % len(_SYMBOLS)] + filling, "size": 8},
    }


def transparent(index: int, alpha: float) -> str:
    """The method's colour for a band behind its line."""
    colour = COLOURS[index % len(COLOURS)]
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def plain(text: str) -> str:
    """Text from files for Plotly, which reads a subset of HTML in labels."""
    return escape(text, quote=False)


def new_plot(height: int, tallest: float | None = None, **layout: Any) -> go.Figure:
    """An empty figure in the page's style; the page itself sets the colours of ground, text and grid.

    ``tallest`` is the largest height over width, so that a figure does not stand upright on a narrow page.
    """
    import plotly.graph_objects as go

    plot = go.Figure()
    plot.update_layout(
        template="none",
        meta={} if tallest is None else {"tallest": tallest},
        height=height,
        margin={"l": 56, "r": 16, "t": 16, "b": 48},
        hoverlabel={"namelength": -1},
        legend={"orientation": "h", "yanchor": "top", "y": -0.16, "x": 0},
        **layout,
    )
    return plot


def overlap_scatter(comparison: Comparison, estimates: Sequence[tuple[Estimate, Estimate]], measure: Measure) -> Figure:
    """Calibration against overlap, one mark a method, with both intervals.

    Args:
        comparison: its methods, in the order of ``estimates``.
        estimates: DSC and ``measure`` of each method.
        measure: of the vertical axis.
    """
    import plotly.graph_objects as go

    plot = new_plot(400, tallest=0.95, xaxis_title="DSC", yaxis_title=measure.label)
    rows: list[list[Any]] = []
    for index, (method, (overlap, calibration)) in enumerate(zip(comparison.methods, estimates, strict=True)):
        x, y = overlap.interval, calibration.interval
        look = style(index)
        plot.add_trace(
            go.Scatter(
                x=[x.value],
                y=[y.value],
                error_x=_error_bar(x.value, x.low, x.high, look["line"]["color"]),
                error_y=_error_bar(y.value, y.low, y.high, look["line"]["color"]),
                mode="markers",
                marker=look["marker"] | {"size": 11},
                name=plain(method.label),
                legendgroup=plain(method.label),
            )
        )
        rows.append([method.label, x.value, x.low, x.high, y.value, y.low, y.high])
    columns = ["method", "DSC", "DSC low", "DSC high", *(f"{measure.label}{end}" for end in ("", " low", " high"))]
    best = "lower" if measure.lower_is_better else "upper"
    told = "; ".join(f"{row[0]}: DSC {row[1]:.3f}, {measure.label} {row[4]:.3f}" for row in rows)
    return Figure(
        f"scatter-{measure.key}",
        f"{measure.label} against DSC",
        f"Bars are 95 % bootstrap intervals over subjects. The {best} right corner is best.",
        f"Scatter of {measure.title} against DSC. {told}.",
        plot,
        csv_text(columns, rows),
    )


def _error_bar(value: float, low: float, high: float, colour: str) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value],
        "arrayminus": [value - low],
        "color": colour,
        "thickness": 1.2,
        "width": 4,
        "visible": bool(np.isfinite([low, high]).all()),
    }


def distribution(comparison: Comparison, measure: Measure) -> Figure:
    """A figure's spread over cases: box and every case, one row a method; cases are means over seeds."""
    import plotly.graph_objects as go

    plot = new_plot(120 + 44 * len(comparison.methods), xaxis_title=_axis(measure), showlegend=False)
    plot.update_yaxes(autorange="reversed", automargin=True)
    rows: list[list[Any]] = []
    told: list[str] = []
    for index, method in enumerate(comparison.methods):
        values = comparison.case_values(method.runs, measure)
        plot.add_trace(
            go.Box(
                x=_finite_or_none(values),
                y=[plain(method.label)] * len(values),
                orientation="h",
                text=[plain(case) for case in comparison.cases],
                hovertemplate="%{text}: %{x:.4f}<extra></extra>",
                **_box_look(index, method),
            )
        )
        rows.extend([method.label, case, value] for case, value in zip(comparison.cases, values, strict=True))
        told.append(_quartiles(method.label, values))
    return Figure(
        f"cases-{measure.key}",
        f"{measure.label} per case",
        "Every point is a case (mean over seeds); the box spans the quartiles, its line is the median.",
        f"Box plot of {measure.title} per case. {'; '.join(told)}.",
        plot,
        csv_text(["method", "case", measure.label], rows),
    )


def class_distribution(comparison: Comparison, measure: Measure) -> Figure | None:
    """A figure's spread over cases for each class, or None if it has no figure a class."""
    import plotly.graph_objects as go

    tables = [comparison.class_values(method.runs, measure) for method in comparison.methods]
    present = [table for table in tables if table is not None]
    if not present:
        return None
    measured = [k for k in range(len(comparison.class_names)) if any(np.isfinite(t[:, k]).any() for t in present)]
    height = 130 + len(measured) * (24 + 24 * len(comparison.methods))
    plot = new_plot(height, xaxis_title=_axis(measure), boxmode="group")
    plot.update_yaxes(autorange="reversed", automargin=True)
    plot.update_layout(legend={"y": -70 / max(height - 64, 1)})
    rows: list[list[Any]] = []
    told: list[str] = []
    for index, (method, table) in enumerate(zip(comparison.methods, tables, strict=True)):
        if table is None:
            continue
        names = [comparison.class_names[k] for k in measured for _ in comparison.cases]
        cases = [case for _ in measured for case in comparison.cases]
        values = table[:, measured].T.ravel()
        plot.add_trace(
            go.Box(
                x=_finite_or_none(values),
                y=[plain(name) for name in names],
                orientation="h",
                text=[plain(case) for case in cases],
                hovertemplate="%{text}: %{x:.4f}<extra></extra>",
                **_box_look(index, method),
            )
        )
        rows.extend([method.label, *rest] for rest in zip(names, cases, values, strict=True))
        told.extend(_quartiles(f"{method.label}, {comparison.class_names[k]}", table[:, k]) for k in measured)
    return Figure(
        f"classes-{measure.key}",
        f"{measure.label} per class",
        "Every point is a case (mean over seeds). Classes absent from a case have no point.",
        f"Box plot of {measure.title} per class. {'; '.join(told)}.",
        plot,
        csv_text(["method", "class", "case", measure.label], rows),
    )


def _box_look(index: int, method: Method) -> dict[str, Any]:
    colour = style(index)["line"]["color"]
    return {
        "name": plain(method.label),
        "legendgroup": plain(method.label),
        "boxpoints": "all",
        "jitter": 0.55,
        "pointpos": 0,
        "fillcolor": transparent(index, 0.12),
        "line": {"color": colour, "width": 1.4},
        "marker": {"color": colour, "size": 3.5, "opacity": 0.55},
    }


def _axis(measure: Measure) -> str:
    return f"{measure.label} ({measure.unit})" if measure.unit else measure.label


def _finite_or_none(values: NDArray[np.float64]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _quartiles(label: str, values: NDArray[np.float64]) -> str:
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return f"{label}: no value"
    low, middle, high = np.quantile(finite, [0.25, 0.5, 0.75])
    return f"{label}: median {middle:.3f}, quartiles {low:.3f} to {high:.3f}"


def ranking_diagram(ranking: Ranking, measure: Measure, colour_index: Sequence[int]) -> Figure:
    """Critical-difference diagram: methods at their mean rank, bars join those that the data do not tell apart.

    Args:
        ranking: of at least three methods.
        measure: that was ranked.
        colour_index: of each method, as elsewhere on the page.

    Source: Demšar, JMLR 2006, figure 1.
    """
    import plotly.graph_objects as go

    order = np.argsort(ranking.mean_ranks, kind="stable")
    size, critical = len(order), ranking.critical_difference
    joined = cliques(ranking.mean_ranks, critical)
    first_row = -0.9 - 0.4 * len(joined)
    half = (size + 1) // 2
    end = max(float(size), 1.0 + critical)
    bottom, top = first_row - half + 0.4, 2.6
    plot = new_plot(round(30 * (top - bottom)) + 16, showlegend=False)
    rows = []
    for place, method in enumerate(order.tolist()):
        rank, left = float(ranking.mean_ranks[method]), place < half
        row = first_row - (place if left else size - 1 - place)
        edge = 0.9 if left else end + 0.1
        colour = COLOURS[colour_index[method] % len(COLOURS)]
        plot.add_trace(
            go.Scatter(
                x=[rank, rank, edge],
                y=[0, row, row],
                mode="lines",
                line={"color": colour, "width": 1.6},
                name=plain(ranking.names[method]),
                hovertemplate=f"mean rank {rank:.2f}",
            )
        )
        plot.add_annotation(
            x=edge,
            y=row,
            text=plain(ranking.names[method]),
            xanchor="right" if left else "left",
            showarrow=False,
        )
        rows.append([ranking.names[method], rank])
    for level, (start, stop) in enumerate(joined):
        ranks = [float(ranking.mean_ranks[order[start]]) - 0.03, float(ranking.mean_ranks[order[stop]]) + 0.03]
        height = -0.45 - 0.4 * level
        plot.add_trace(
            go.Scatter(x=ranks, y=[height] * 2, mode="lines", line={"color": NEUTRAL, "width": 5}, hoverinfo="skip")
        )
    plot.add_trace(
        go.Scatter(
            x=[1.0, 1.0 + critical],
            y=[1.5, 1.5],
            mode="lines+markers",
            line={"color": NEUTRAL, "width": 2},
            marker={"symbol": "line-ns", "size": 8, "line": {"width": 2, "color": NEUTRAL}},
            hoverinfo="skip",
        )
    )
    plot.add_annotation(
        x=1.0, y=1.5, yshift=12, text=f"critical difference {critical:.2f}", xanchor="left", showarrow=False
    )
    plot.update_xaxes(range=[0.85, end + 0.15], tickmode="linear", tick0=1, dtick=1, side="top", showgrid=False)
    plot.update_xaxes(anchor="free", position=-bottom / (top - bottom), ticks="outside", showline=True)
    plot.update_yaxes(range=[bottom, top], visible=False)
    side = min(130, 10 + 7 * max(len(name) for name in ranking.names))
    plot.update_layout(margin={"l": side, "r": side, "t": 8, "b": 8})
    told = ", ".join(f"{name} {rank:.2f}" for name, rank in rows)
    groups = "; ".join(", ".join(str(rows[k][0]) for k in range(start, stop + 1)) for start, stop in joined)
    return Figure(
        f"ranks-{measure.key}",
        f"Ranks by {measure.label}",
        f"Friedman's mean ranks over {ranking.num_subjects} subjects, 1 is best (p {p_text(ranking.p_value)}); a thick "
        f"bar joins methods closer than Nemenyi's critical difference at the 5 % level.",
        f"Critical-difference diagram of {measure.title}. Mean ranks: {told}. Not told apart: {groups or 'none'}.",
        plot,
        csv_text(["method", "mean rank", "critical difference", "p"], [[*r, critical, ranking.p_value] for r in rows]),
    )


def p_text(p_value: float) -> str:
    """A p value as journals print it.

    Example:
        >>> p_text(0.0004), p_text(0.0312), p_text(float("nan"))
        ('< 0.001', '= 0.031', 'not available')
    """
    if not np.isfinite(p_value):
        return "not available"
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.3f}"
