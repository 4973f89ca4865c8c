"""Reliability diagrams: confidence against accuracy, with how many voxels stand behind each point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_calib.metrics.bootstrap import bootstrap_ratio
from monai_calib.metrics.protocols import Protocol
from monai_calib.metrics.regions import Region
from monai_calib.words import counted

from .comparison import Comparison, Method
from .figures import NEUTRAL, Figure, axis, figure_csv, new_plot, plain, style, transparent
from .runs import Run

__all__ = ["Curve", "curve", "overlaid_reliability", "pooled", "reliability_diagram", "reliability_of_runs"]

# Bands of more methods than this hide one another; error bars stay legible for longer.
MOST_BANDS = 4


@dataclass(frozen=True)
class Curve:
    """Bins of a reliability diagram: edges, voxels of a run, mean confidence, accuracy, its interval over subjects."""

    edges: NDArray[np.float64]
    count: NDArray[np.float64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def curve(bins: NDArray[np.float64], subjects: Sequence[str], num_runs: int = 1) -> Curve:
    """The diagram of ``(cases, 3, bins)`` of one or several runs; each interval comes from resampling subjects.

    A binomial interval over voxels would be far too narrow: neighbouring voxels share their fate.
    """
    count, hits, confidence = bins[:, 0], bins[:, 1], bins[:, 2]
    accuracy, low, high = bootstrap_ratio(hits, count, subjects)
    with np.errstate(invalid="ignore"):
        mean_confidence = confidence.sum(axis=0) / count.sum(axis=0)
    edges = np.linspace(0.0, 1.0, bins.shape[2] + 1)
    return Curve(edges, count.sum(axis=0) / num_runs, mean_confidence, accuracy, low, high)


def overlaid_reliability(
    comparison: Comparison, protocol: Protocol, region: Region, row: int | None = None
) -> Figure | None:
    """One diagram for all methods, each with the voxels of its seeds together; None without histograms.

    Args:
        comparison: whose methods are drawn.
        protocol: whose bins they are.
        region: likewise.
        row: a class, or None for the top label.
    """
    named: list[tuple[str, tuple[int, int], Curve]] = []
    for method in comparison.methods:
        together = pooled(method, protocol, region, row)
        if together is not None:
            named.append((method.label, method.place, together))
    if not named:
        return None
    whose = "" if row is None else f" of {comparison.class_names[row]}"
    key = f"reliability-{protocol.name}-{region.name}" + ("" if row is None else f"-class{row}")
    return reliability_diagram(key, f"Reliability{whose}, {region.words}", named)


def pooled(method: Method, protocol: Protocol, region: Region, row: int | None = None) -> Curve | None:
    """The voxels of a method's seeds together, as :func:`overlaid_reliability` draws them; None without histograms."""
    found = [(run, _row(run, protocol, region, row)) for run in method.runs]
    tables = [(run, table) for run, table in found if table is not None]
    if not tables:
        return None
    subjects = [subject for run, _ in tables for subject in run.subjects]
    return curve(np.concatenate([table for _, table in tables]), subjects, len(tables))


def reliability_of_runs(comparison: Comparison, protocol: Protocol, region: Region) -> list[Figure]:
    """One diagram for each method of several runs, and for what did not converge."""
    figures = []
    for number, method in enumerate((*comparison.methods, *comparison.failed)):
        if len(method.runs) == 1 and not method.failed:
            continue
        named: list[tuple[str, tuple[int, int], Curve]] = []
        for index, run in enumerate((*method.runs, *method.failed)):
            table = _row(run, protocol, region, None)
            if table is not None:
                note = ", did not converge" if run in method.failed else ""
                named.append((f"seed {run.seed}{note}", (index, 0), curve(table, run.subjects)))
        if named:
            key = f"reliability-{protocol.name}-{region.name}-method{number}"
            title = f"{method.label}: reliability of each run, {region.words}"
            figures.append(reliability_diagram(key, title, named))
    return figures


def _row(run: Run, protocol: Protocol, region: Region, row: int | None) -> NDArray[np.float64] | None:
    """``(cases, 3, bins)`` of a class or the top label, as far as the run has it."""
    table = run.bins.get((region.name, protocol.num_bins))
    if table is None or (row is None and table.shape[1] == len(run.class_names)):
        return None
    return table[:, -1 if row is None else row]


def reliability_diagram(key: str, title: str, named: Sequence[tuple[str, tuple[int, int], Curve]]) -> Figure:
    """Curves over each other, the voxels of each bin below.

    Args:
        key: of the figure.
        title: likewise.
        named: label, place (see :func:`~.figures.style`) and bins of each curve. Up to four have bands, more have bars.
    """
    plot = new_plot(
        500,
        tallest=1.15,
        xaxis=axis("confidence", range=[0, 1], anchor="y2"),
        yaxis=axis("accuracy", domain=[0.32, 1], range=[0, 1]),
        yaxis2=axis("voxels", domain=[0, 0.24], type="log", dtick=1, exponentformat="power"),
    )
    plot["data"].append(
        {
            "type": "scatter",
            "x": [0, 1],
            "y": [0, 1],
            "mode": "lines",
            "name": "perfect",
            "line": {"color": NEUTRAL, "width": 1, "dash": "dash"},
            "hoverinfo": "skip",
            "showlegend": False,
        }
    )
    rows: list[list[Any]] = []
    told = []
    for label, place, bins in named:
        plot["data"] += _traces(label, place, bins, banded=len(named) <= MOST_BANDS)
        table = (bins.edges[:-1], bins.edges[1:], bins.count, bins.confidence, bins.accuracy, bins.low, bins.high)
        rows.extend([label, *numbers] for numbers in zip(*table, strict=True))
        told.append(f"{label}: {_in_words(bins)}")
    columns = ["series", "bin low", "bin high", "voxels", "confidence", "accuracy", "accuracy low", "accuracy high"]
    return Figure(
        key,
        title,
        "On the dashed line confidence equals accuracy; below it the network is over-confident. Intervals: 95 % "
        "bootstrap over subjects. Below: voxels in each bin (mean over seeds).",
        f"Reliability diagram. {'; '.join(told)}.",
        plot,
        figure_csv(columns, rows),
    )


def _traces(label: str, place: tuple[int, int], bins: Curve, banded: bool) -> list[dict[str, Any]]:
    filled = bins.count > 0
    x, y, low, high, counts = (
        part[filled] for part in (bins.confidence, bins.accuracy, bins.low, bins.high, bins.count)
    )
    group = {"type": "scatter", "name": plain(label), "legendgroup": plain(label)}
    look = style(place)
    known = np.isfinite(low) & np.isfinite(high)
    traces: list[dict[str, Any]] = []
    if banded and known.any():
        traces.append(
            {
                "x": [*x[known], *x[known][::-1]],
                "y": [*low[known], *high[known][::-1]],
                "mode": "lines",
                "fill": "toself",
                "fillcolor": transparent(place, 0.14),
                "line": {"width": 0},
                "hoverinfo": "skip",
                "showlegend": False,
                **group,
            }
        )
    bars = {} if banded else {"error_y": _bars(y, low, high, look["line"]["color"])}
    traces.append(
        {
            "x": x,
            "y": y,
            "mode": "lines+markers",
            "customdata": counts,
            **look,
            **bars,
            **group,
            "hovertemplate": "confidence %{x:.3f}, accuracy %{y:.3f}, %{customdata:,.0f} voxels",
        }
    )
    centres = (bins.edges[:-1] + bins.edges[1:]) / 2
    traces.append(
        {
            "x": centres[filled],
            "y": counts,
            "mode": "lines",
            "yaxis": "y2",
            "showlegend": False,
            **group,
            "line": look["line"] | {"shape": "hvh", "width": 1.5},
            "hovertemplate": "%{y:,.0f} voxels",
        }
    )
    return traces


def _bars(y: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], colour: str) -> dict[str, Any]:
    up, down = np.nan_to_num(high - y), np.nan_to_num(y - low)
    ends = {"type": "data", "array": up, "arrayminus": down, "symmetric": False}
    return ends | {"color": colour, "thickness": 1, "width": 2}


def _in_words(bins: Curve) -> str:
    total = bins.count.sum()
    if total == 0:
        return "no voxel"
    filled = bins.count > 0
    confidence = float((bins.confidence[filled] * bins.count[filled]).sum() / total)
    accuracy = float((bins.accuracy[filled] * bins.count[filled]).sum() / total)
    return f"mean confidence {confidence:.3f} at accuracy {accuracy:.3f} over {counted(round(total), 'voxel')}"
