"""All pairs of methods at a glance: mean paired differences, and which of them are real."""

from __future__ import annotations

import math

from monai_calib.words import counted

from .figures import COLOURS, Figure, figure_csv, new_plot, p_text, plain
from .findings import LEVEL, Findings, pair_columns, pair_row

__all__ = ["differences"]


def differences(findings: Findings) -> Figure | None:
    """A matrix, row minus column, with a mark where Holm's p is below 5 %; None for fewer than three methods."""
    names = list(dict.fromkeys(name for test in findings.pairs for name in (test.first, test.second)))
    if len(names) < 3:
        return None
    number = {name: index for index, name in enumerate(names)}
    size = range(len(names))
    value: list[list[float]] = [[math.nan for _ in size] for _ in size]
    mark = [["" for _ in size] for _ in size]
    told = [["" for _ in size] for _ in size]
    for test in findings.pairs:
        i, j = number[test.first], number[test.second]
        value[i][j], value[j][i] = test.difference.value, -test.difference.value
        mark[i][j] = mark[j][i] = "●" if test.p_holm < LEVEL else ""
        told[i][j] = told[j][i] = f"p {p_text(test.p_value)}, Holm {p_text(test.p_holm)}"
    largest = max((abs(x) for row in value for x in row if math.isfinite(x)), default=0.0) or 1.0
    low_end, high_end = (COLOURS[0], COLOURS[1]) if findings.column.lower_is_better else (COLOURS[1], COLOURS[0])
    labels = [plain(name) for name in names]
    column = findings.column
    plot = new_plot(
        150 + 24 * len(names),
        narrowest=None if len(names) <= 8 else 240 + 20 * len(names),
        showlegend=False,
        xaxis={"automargin": True, "tickangle": -45, "showgrid": False, "type": "category"},
        yaxis={"automargin": True, "autorange": "reversed", "showgrid": False, "type": "category"},
    )
    plot["data"].append(
        {
            "type": "heatmap",
            "x": labels,
            "y": labels,
            "z": value,
            "text": mark,
            "customdata": told,
            "texttemplate": "%{text}",
            "zmin": -largest,
            "zmax": largest,
            "xgap": 1,
            "ygap": 1,
            "colorscale": [[0, low_end], [0.5, "#ffffff"], [1, high_end]],
            "colorbar": {"thickness": 10, "outlinewidth": 0, "tickformat": ".2g"},
            "hovertemplate": "%{y} − %{x}: %{z:.4f}<br>%{customdata}<extra></extra>",
        }
    )
    pairs = counted(len(findings.pairs), "pair")
    real = [f"{t.first} and {t.second}" for t in findings.pairs if t.p_holm < LEVEL]
    return Figure(
        f"pairs-{column.key}",
        f"All pairs by {column.label}",
        "Row minus column, mean over subjects; blue where the row is better. ● : p below 0.05 after Holm's correction "
        f"over {pairs} (Wilcoxon's signed-rank test over subjects).",
        f"Matrix of paired differences of {column.title}. Told apart are {len(real)} of {pairs}: "
        f"{', '.join(real) or 'none'}.",
        plot,
        figure_csv(pair_columns(), [pair_row(findings, test) for test in findings.pairs]),
    )
