"""The critical-difference diagram: which methods the data tell apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from .columns import Column
from .comparison import Comparison
from .figures import NEUTRAL, Figure, figure_csv, new_plot, p_text, plain, style
from .statistics import Ranking, cliques

__all__ = ["ranking_diagram"]


def ranking_diagram(comparison: Comparison, ranking: Ranking, column: Column) -> Figure:
    """Methods at their mean rank; thick bars join those that the data do not tell apart.

    Args:
        comparison: whose methods were ranked, in its order.
        ranking: of at least three methods.
        column: that was ranked.

    Source: Demšar, JMLR 2006, figure 1.
    """
    order = np.argsort(ranking.mean_ranks, kind="stable").tolist()
    size, critical = len(order), ranking.critical_difference
    joined = cliques(ranking.mean_ranks, critical)
    first_row = -0.9 - 0.4 * len(joined)
    half = (size + 1) // 2
    end = max(float(size), 1.0 + critical)
    bottom, top = first_row - half + 0.4, 2.6
    side = min(270, 14 + round(6.2 * max(len(name) for name in ranking.names)))
    plot = new_plot(
        round((30 if size <= 12 else 22) * (top - bottom)) + 16,
        narrowest=None if size <= 5 and side < 90 else max(560, 2 * side + 120),
        showlegend=False,
        margin={"l": side, "r": side, "t": 8, "b": 8},
        xaxis={
            "range": [0.85, end + 0.15],
            "tickmode": "linear",
            "tick0": 1,
            "dtick": 1 if end <= 15 else 5,
            "side": "top",
            "showgrid": False,
            "anchor": "free",
            "position": -bottom / (top - bottom),
            "ticks": "outside",
            "showline": True,
        },
        yaxis={"range": [bottom, top], "visible": False},
        annotations=[],
    )
    rows: list[list[Any]] = []
    for place, method in enumerate(order):
        rank, left, name = float(ranking.mean_ranks[method]), place < half, plain(ranking.names[method])
        row = first_row - (place if left else size - 1 - place)
        edge = 0.9 if left else end + 0.1
        plot["data"].append(
            {
                "type": "scatter",
                "x": [rank, rank, edge],
                "y": [0, row, row],
                "mode": "lines",
                "line": style(comparison.methods[method].place)["line"] | {"width": 1.6},
                "name": name,
                "hovertemplate": f"mean rank {rank:.2f}",
            }
        )
        plot["layout"]["annotations"].append(_note(edge, row, name, "right" if left else "left"))
        rows.append([ranking.names[method], rank])
    for level, (start, stop) in enumerate(joined):
        ends = [float(ranking.mean_ranks[order[start]]) - 0.03, float(ranking.mean_ranks[order[stop]]) + 0.03]
        plot["data"].append(_line(ends, -0.45 - 0.4 * level, 5))
    plot["data"].append(
        _line([1.0, 1.0 + critical], 1.5, 2)
        | {
            "mode": "lines+markers",
            "marker": {"symbol": "line-ns", "size": 8, "line": {"width": 2, "color": NEUTRAL}},
        }
    )
    plot["layout"]["annotations"].append(_note(1.0, 1.5, f"critical difference {critical:.2f}", "left", 12))
    told = ", ".join(f"{name} {rank:.2f}" for name, rank in rows)
    groups = "; ".join(", ".join(str(rows[k][0]) for k in range(start, stop + 1)) for start, stop in joined)
    return Figure(
        f"ranks-{column.key}",
        f"Ranks by {column.label}",
        f"Friedman's mean ranks over {ranking.num_subjects} subjects, 1 is best (p {p_text(ranking.p_value)}); a thick "
        f"bar joins methods closer than Nemenyi's critical difference at the 5 % level. A subject is ranked by its "
        f"means over cases and seeds: neither adds to the number of subjects.",
        f"Critical-difference diagram of {column.title}. Mean ranks: {told}. Not told apart: {groups or 'none'}.",
        plot,
        figure_csv(
            ["method", "mean rank", "critical difference", "p"], [[*r, critical, ranking.p_value] for r in rows]
        ),
    )


def _note(x: float, y: float, text: str, anchor: str, shift: int = 0) -> dict[str, Any]:
    return {"x": x, "y": y, "text": text, "xanchor": anchor, "yshift": shift, "showarrow": False, "font": {"size": 11}}


def _line(ends: list[float], height: float, width: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "x": ends,
        "y": [height, height],
        "mode": "lines",
        "line": {"color": NEUTRAL, "width": width},
        "hoverinfo": "skip",
    }
