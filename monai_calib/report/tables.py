"""The tables of the report as CSV and LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from monai_calib.metrics.protocols import Protocol
from monai_calib.metrics.regions import Region
from monai_calib.spreadsheet import cell

from .columns import Column
from .comparison import Comparison, Estimate

__all__ = [
    *("ResultRow", "ResultTable", "csv_text", "figure_text", "latex_escape", "latex_text", "overview_table"),
    *("result_csv", "result_table"),
]

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


@dataclass(frozen=True)
class ResultRow:
    """A line of a result table: a method (mean over its seeds), one of its runs, or a run that did not converge."""

    label: str
    kind: str
    method: str
    num_runs: int
    note: str
    cells: tuple[Estimate, ...]


@dataclass(frozen=True)
class ResultTable:
    """Figures of every method and run: DSC, HD95 and one protocol's figures in one region, or what has no protocol.

    ``protocol`` and ``region`` are "" for the latter.
    """

    protocol: str
    region: str
    num_bins: int | None
    reduction: str
    columns: tuple[Column, ...]
    rows: tuple[ResultRow, ...]

    @property
    def heading(self) -> str:
        """Protocol, region, bins and reduction: what any of its figures is nothing without."""
        if not self.protocol:
            return "Overlap, distance, volume and cost"
        bins = "" if self.num_bins is None else f", {self.num_bins} bins"
        return f"Protocol {self.protocol}: region {self.region}{bins}, {self.reduction} average"

    @property
    def name(self) -> str:
        """For its file."""
        return f"{self.protocol}_{self.region}_{self.reduction}" if self.protocol else "overview"

    def without_overlap(self) -> ResultTable:
        """The same without DSC and HD95, which a page shows once; a table that has no protocol stays as it is."""
        keep = [place for place, column in enumerate(self.columns) if column.protocol or not self.protocol]
        rows = tuple(replace(row, cells=tuple(row.cells[place] for place in keep)) for row in self.rows)
        return replace(self, columns=tuple(self.columns[place] for place in keep), rows=rows)

    @property
    def empty(self) -> bool:
        """Whether no method has any figure."""
        return not any(math.isfinite(cell.interval.value) for row in self.rows for cell in row.cells)

    def best(self, index: int) -> float:
        """The best mean of a column over methods, NaN if there are fewer than two or nothing is better than another."""
        column = self.columns[index]
        values = [row.cells[index].interval.value for row in self.rows if row.kind == "method"]
        finite = [value for value in values if math.isfinite(value)]
        if len(finite) < 2 or not column.ranks:
            return float("nan")
        return min(finite) if column.lower_is_better else max(finite)


def result_table(comparison: Comparison, protocol: Protocol, region: Region, reduction: str) -> ResultTable:
    """One protocol's figures in one region, with DSC and HD95 beside them."""
    columns = (*comparison.overlap_columns(), *comparison.calibration_columns(protocol, region, reduction))
    return ResultTable(protocol.name, region.name, protocol.num_bins, reduction, columns, _rows(comparison, columns))


def overview_table(comparison: Comparison) -> ResultTable:
    """The table of what belongs to no protocol: overlap, distance, errors of the volume, time of training."""
    columns = (*comparison.overlap_columns(), *comparison.volume_columns(), *comparison.cost_columns())
    return ResultTable("", "", None, "macro", columns, _rows(comparison, columns))


def _rows(comparison: Comparison, columns: Sequence[Column]) -> tuple[ResultRow, ...]:
    """Methods first, each followed by its runs if it has several, and failed runs marked as such."""
    rows = []
    for method in (*comparison.methods, *comparison.failed):
        if method.runs:
            cells = tuple(comparison.estimate(method.runs, column) for column in columns)
            rows.append(ResultRow(method.label, "method", method.label, len(method.runs), "", cells))
        for run in (*method.runs, *method.failed):
            missed = run.missed_classes()
            if len(method.runs) < 2 and not missed:
                continue
            cells = tuple(comparison.estimate([run], column) for column in columns)
            note = f"did not converge: {', '.join(missed)} never found" if missed else ""
            kind = "failed" if missed else "run"
            rows.append(ResultRow(f"{method.label}, seed {run.seed}", kind, method.label, 1, note, cells))
    return tuple(rows)


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Comma-separated text. Numbers keep their precision, NaN is left empty, and text that a spreadsheet would take
    for a formula is quoted with an apostrophe.

    Example:
        >>> print(csv_text(["case", "ECE"], [["=a", 0.5], ["b", float("nan")]]), end="")
        case,ECE
        '=a,0.5
        b,
    """
    import pandas as pd

    table = pd.DataFrame(
        [list(map(_harmless, row)) for row in rows], columns=list(map(_harmless, columns)), dtype=object
    )
    return table.to_csv(index=False, lineterminator="\n")


def _harmless(value: Any) -> Any:
    if isinstance(value, str):
        return cell(value)
    return float(value) if isinstance(value, float) else value


def result_csv(tables: Iterable[ResultTable]) -> str:
    """Every figure of the tables, one a line: with its protocol, region, interval and spread over seeds."""
    columns = ["protocol", "region", "bins", "reduction", "metric", "unit", "row", "kind", "runs", "note"]
    rows = [
        [
            *(table.protocol, table.region, table.num_bins, table.reduction),
            *(column.label, column.unit, row.label, row.kind, row.num_runs, row.note),
            *(*cell.interval, cell.spread, cell.undefined),
        ]
        for table in tables
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
    ]
    return csv_text([*columns, "value", "low", "high", "seed_sd", "undefined_cases"], rows)


def latex_text(table: ResultTable) -> str:
    """A ``booktabs`` table of the methods; the best mean of each column is bold, intervals stand below.

    The document needs ``\\usepackage{booktabs}``.
    """
    import pandas as pd

    best = [table.best(index) for index in range(len(table.columns))]
    lines = []
    for row in (row for row in table.rows if row.kind == "method"):
        values = [_latex_value(cell, cell.interval.value == top) for cell, top in zip(row.cells, best, strict=True)]
        bounds = [_latex_bounds(cell) for cell in row.cells]
        lines += [[latex_escape(row.label), *values], *([["", *bounds]] if any(bounds) else [])]
    heads = ["Loss", *(f"{latex_escape(_head(column))}{_arrow(column)}" for column in table.columns)]
    caption = (
        rf"{latex_escape(table.heading)}. Mean, $\pm$ standard deviation over seeds, and 95\,\% bootstrap interval "
        "over subjects."
    )
    frame = pd.DataFrame(lines, columns=heads, dtype=object)
    layout = f"l{'r' * len(table.columns)}"
    return frame.to_latex(index=False, escape=False, caption=caption, column_format=layout)


def _head(column: Column) -> str:
    return f"{column.label} [{column.unit}]" if column.unit else column.label


def _arrow(column: Column) -> str:
    if not column.ranks:
        return ""
    return r" $\downarrow$" if column.lower_is_better else r" $\uparrow$"


def _latex_value(cell: Estimate, best: bool) -> str:
    text = figure_text(cell.interval.value)
    if not math.isfinite(cell.interval.value):
        return "--"
    spread = rf" {{\scriptsize $\pm$ {figure_text(cell.spread, cell.interval.value)}}}" if cell.spread >= 0 else ""
    return (rf"\textbf{{{text}}}" if best else text) + spread


def _latex_bounds(cell: Estimate) -> str:
    low, high = cell.interval.low, cell.interval.high
    value = cell.interval.value
    return rf"{{\scriptsize {figure_text(low, value)}--{figure_text(high, value)}}}" if math.isfinite(low) else ""


def figure_text(value: float, like: float | None = None) -> str:
    """A figure as the tables print it: three decimals, fewer from 10 on, four below 0.01.

    Args:
        value: the figure.
        like: another figure whose decimals to take, for a spread or bound that stands beside it.

    Example:
        >>> figure_text(0.8263), figure_text(0.00412), figure_text(12.34), figure_text(float("nan"))
        ('0.826', '0.0041', '12.3', '–')
        >>> figure_text(0.0021, like=0.8263)
        '0.002'
    """
    if not math.isfinite(value):
        return "–"
    size = abs(value if like is None or not math.isfinite(like) else like)
    decimals = 1 if size >= 10 else 4 if 0 < size < 0.01 else 3
    return f"{value:.{decimals}f}"


def latex_escape(text: str) -> str:
    r"""Text from files as LaTeX.

    Example:
        >>> print(latex_escape("dice_ce 100%"))
        dice\_ce 100\%
    """
    return re.sub(r"[\\&%$#_{}~^]", lambda match: _LATEX[match.group()], text)
