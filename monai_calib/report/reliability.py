"""Reliability diagrams: confidence against accuracy, with how many voxels stand behind each point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_calib.metrics import Bins, CalibrationHistogram

from .comparison import Comparison
from .figures import NEUTRAL, Figure, new_plot, plain, style, transparent
from .runs import Protocol, Run, RunError, region_in_words
from .statistics import bootstrap_ratio
from .tables import csv_text

__all__ = ["Curve", "overlaid_reliability", "read_bins", "reliability_of_runs"]

Bins4 = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Bins of a reliability diagram: edges, voxels of a run, mean confidence, accuracy, its interval over subjects."""

    edges: NDArray[np.float64]
    count: NDArray[np.float64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def read_bins(run: Run, region: str, num_bins: int) -> NDArray[np.float64] | None:
    """Voxels, hits and summed confidence of a run in a region, or None if it has none there.

    Shape: ``(cases, rows, 3, num_bins)``; a row for each class and a last one for the top label, which a multi-label
    run does not have.
    Raises: :class:`~monai_calib.report.runs.RunError` if a histogram cannot be read.
    """
    if region not in run.histograms:
        return None
    cases = []
    for case, saved in zip(run.cases, run.histograms[region], strict=True):
        try:
            hist = CalibrationHistogram.from_json(dict(saved))
            rows: list[int | None] = list(range(hist.num_classes))
            if hist.activation != "sigmoid":
                rows.append(None)
            cases.append([_columns(hist.bins(num_bins, row)) for row in rows])
        except (KeyError, TypeError, ValueError) as error:
            path = run.folder / "eval" / "calibration.json"
            raise RunError(f"{path}: histogram of case {case}, region {region}, cannot be read: {error}") from error
    return np.array(cases)


def _columns(bins: Bins) -> NDArray[np.float64]:
    return np.stack([bins.count.double().numpy(), bins.hits.double().numpy(), bins.confidence.numpy()])


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
    comparison: Comparison, protocol: Protocol, region: str, bins: Mapping[Run, Bins4 | None], row: int | None = None
) -> Figure | None:
    """One diagram for all methods, each with the voxels of its seeds together; None without histograms.

    Args:
        comparison: whose methods are drawn.
        protocol: which names the figure.
        region: likewise.
        bins: of each run, from :func:`read_bins`.
        row: a class, or None for the top label.
    """
    named = []
    for index, method in enumerate(comparison.methods):
        runs = [run for run in method.runs if _has(bins[run], comparison, row)]
        if runs:
            together = np.concatenate([_row(bins[run], row) for run in runs])
            subjects = [subject for run in runs for subject in run.subjects]
            named.append((method.label, index, curve(together, subjects, len(runs))))
    if not named:
        return None
    whose = "" if row is None else f" of {comparison.class_names[row]}"
    key = f"reliability-{protocol.name}-{region}" + ("" if row is None else f"-class{row}")
    return _diagram(key, f"Reliability{whose}, {region_in_words(region)}", named, banded=len(named) <= 4)


def reliability_of_runs(
    comparison: Comparison, protocol: Protocol, region: str, bins: Mapping[Run, Bins4 | None]
) -> list[Figure]:
    """One diagram a method with each of its runs, those that did not converge included."""
    figures = []
    for number, method in enumerate((*comparison.methods, *comparison.failed)):
        named = []
        for index, run in enumerate((*method.runs, *method.failed)):
            if _has(bins[run], comparison, None):
                note = ", did not converge" if run in method.failed else ""
                named.append((f"seed {run.seed}{note}", index, curve(_row(bins[run], None), run.subjects)))
        if named:
            key = f"reliability-{protocol.name}-{region}-method{number}"
            title = f"{method.label}: reliability of each run, {region_in_words(region)}"
            figures.append(_diagram(key, title, named, banded=True))
    return figures


def _has(bins: Bins4 | None, comparison: Comparison, row: int | None) -> bool:
    return bins is not None and (row is not None or bins.shape[1] > len(comparison.class_names))


def _row(bins: Bins4 | None, row: int | None) -> NDArray[np.float64]:
    assert bins is not None
    return bins[:, -1 if row is None else row]


def _diagram(key: str, title: str, named: Sequence[tuple[str, int, Curve]], banded: bool) -> Figure:
    import plotly.graph_objects as go

    plot = new_plot(500, tallest=1.15)
    plot.update_layout(
        xaxis={"range": [0, 1], "anchor": "y2", "title": "confidence"},
        yaxis={"domain": [0.32, 1], "range": [0, 1], "title": "accuracy"},
        yaxis2={"domain": [0, 0.24], "type": "log", "title": "voxels", "dtick": 1, "exponentformat": "power"},
    )
    plot.add_trace(
        go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": NEUTRAL, "width": 1, "dash": "dash"},
                   name="perfect", hoverinfo="skip", showlegend=False)
    )  # fmt: skip
    rows: list[list[Any]] = []
    told = []
    for label, index, bins in named:
        filled = bins.count > 0
        x, y, low, high = (part[filled] for part in (bins.confidence, bins.accuracy, bins.low, bins.high))
        group = {"name": plain(label), "legendgroup": plain(label)}
        known = np.isfinite(low) & np.isfinite(high)
        if banded and known.any():
            plot.add_trace(
                go.Scatter(
                    x=[*x[known], *x[known][::-1]],
                    y=[*low[known], *high[known][::-1]],
                    mode="lines",
                    fill="toself",
                    fillcolor=transparent(index, 0.14),
                    line={"width": 0},
                    hoverinfo="skip",
                    showlegend=False,
                    **group,
                )
            )
        look = style(index)
        bars = {} if banded else _bars(y, low, high, look["line"]["color"])
        counts = bins.count[filled]
        plot.add_trace(
            go.Scatter(
                x=x.tolist(),
                y=y.tolist(),
                mode="lines+markers",
                customdata=counts.tolist(),
                hovertemplate="confidence %{x:.3f}, accuracy %{y:.3f}, %{customdata:,.0f} voxels",
                **look,
                **bars,
                **group,
            )
        )
        centres = (bins.edges[:-1] + bins.edges[1:]) / 2
        plot.add_trace(
            go.Scatter(
                x=centres[filled].tolist(),
                y=counts.tolist(),
                mode="lines",
                line=look["line"] | {"shape": "hvh", "width": 1.5},
                yaxis="y2",
                hovertemplate="%{y:,.0f} voxels",
                showlegend=False,
                **group,
            )
        )
        rows.extend(
            [label, *numbers]
            for numbers in zip(
                bins.edges[:-1], bins.edges[1:], bins.count, bins.confidence, bins.accuracy, bins.low,
                bins.high, strict=True,
            )
        )  # fmt: skip
        told.append(f"{label}: {_in_words(bins)}")
    columns = ["series", "bin low", "bin high", "voxels", "confidence", "accuracy", "accuracy low", "accuracy high"]
    return Figure(
        key,
        title,
        "On the dashed line confidence equals accuracy; below it the network is over-confident. Intervals: 95 % "
        "bootstrap over subjects. Below: voxels in each bin (mean over seeds).",
        f"Reliability diagram. {'; '.join(told)}.",
        plot,
        csv_text(columns, rows),
    )


def _bars(y: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], colour: str) -> dict[str, Any]:
    up, down = np.nan_to_num(high - y), np.nan_to_num(y - low)
    bar = {"type": "data", "array": up.tolist(), "arrayminus": down.tolist(), "symmetric": False}
    return {"error_y": bar | {"color": colour, "thickness": 1, "width": 2}}


def _in_words(bins: Curve) -> str:
    total = bins.count.sum()
    if total == 0:
        return "no voxel"
    filled = bins.count > 0
    confidence = float((bins.confidence[filled] * bins.count[filled]).sum() / total)
    accuracy = float((bins.accuracy[filled] * bins.count[filled]).sum() / total)
    return f"mean confidence {confidence:.3f} at accuracy {accuracy:.3f} over {total:.0f} voxels"
