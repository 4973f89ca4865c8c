"""How each case's figure changes with a calibration: a mean that falls may hide cases that got worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .case_tables import number
from .figures import COLOURS, NEUTRAL, Figure, axis, figure_csv, new_plot, plain, transparent
from .measures import Measure
from .protocols import Protocol, region_in_words

__all__ = ["case_changes"]


def case_changes(
    cases: Mapping[str, Mapping[str, Mapping[str, Any]]], kind: str, protocols: Sequence[Protocol]
) -> list[Figure]:
    """After minus before of one measure, a box a region and method with every case; nothing if no case has it.

    Args:
        cases: ``cases[case][method][figure]``, the method ``before`` first, None where undefined.
        kind: such as ``ece``.
        protocols: that give the regions and bins.
    """
    stems: dict[str, str] = {}
    for protocol in protocols:
        for region in protocol.regions if kind in protocol.measures else ():
            stems |= {f"{kind}_{region}_{protocol.num_bins}bins": region, f"{kind}_{region}": region}
    before, *methods = next(iter(cases.values()))
    measured = {stem: region for stem, region in stems.items() if stem in next(iter(cases.values()))[before]}
    label = Measure(kind, kind).label
    plot = new_plot(
        110 + len(measured) * (20 + 26 * len(methods)),
        xaxis=axis(f"{label} after minus before"),
        yaxis={"autorange": "reversed", "automargin": True},
        boxmode="group",
        showlegend=len(methods) > 1,
        shapes=[
            {
                "type": "line",
                "x0": 0,
                "x1": 0,
                "y0": 0,
                "y1": 1,
                "yref": "paper",
                "layer": "below",
                "line": {"color": NEUTRAL, "width": 1, "dash": "dash"},
            }
        ],
    )
    rows: list[list[Any]] = []
    told = []
    for index, method in enumerate(methods):
        changes: list[tuple[str, str, float]] = [
            (case, region_in_words(region), number(row[method][stem]) - number(row[before][stem]))
            for stem, region in measured.items()
            for case, row in cases.items()
        ]
        rows += [[method, *change] for change in changes]
        colour = COLOURS[index % len(COLOURS)]
        plot["data"].append(
            {
                "type": "box",
                "x": [change for _, _, change in changes],
                "y": [plain(region) for _, region, _ in changes],
                "text": [plain(case) for case, _, _ in changes],
                "orientation": "h",
                "name": plain(method),
                "hovertemplate": "%{text}: %{x:.4f}<extra></extra>",
                "boxpoints": "all",
                "jitter": 0.55,
                "pointpos": 0,
                "fillcolor": transparent((index, 0), 0.14),
                "line": {"color": colour, "width": 1.4},
                "marker": {"color": colour, "size": 3.5, "opacity": 0.55},
            }
        )
        for region in measured.values():
            values = np.array([change for _, name, change in changes if name == region_in_words(region)])
            finite = values[np.isfinite(values)]
            told.append(f"{method}, {region_in_words(region)}: lower in {(finite < 0).sum()} of {len(finite)} cases")
    if not any(np.isfinite(row[-1]) for row in rows):
        return []
    return [
        Figure(
            f"change-{kind}",
            f"{label}: change of each case",
            "Every point is a case, left of the dashed line after is lower than before; the box spans the quartiles.",
            f"Box plot of {label} after minus before per case. {'; '.join(told)}.",
            plot,
            figure_csv(["method", "case", "region", f"{label} after minus before"], rows),
        )
    ]
