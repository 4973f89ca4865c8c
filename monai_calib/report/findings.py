"""Which differences are real: rankings and paired tests of a measure, and what they say in plain sentences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .comparison import Comparison, Measure
from .figures import p_text
from .statistics import PairedTest, Ranking, friedman_nemenyi, paired_tests
from .tables import ResultTable, csv_text, figure_text

__all__ = ["Findings", "findings", "reading", "tests_csv"]

LEVEL = 0.05


@dataclass(frozen=True)
class Findings:
    """Tests of one measure: pairs of methods, and the ranking of three or more."""

    measure: Measure
    pairs: tuple[PairedTest, ...]
    ranking: Ranking | None


def findings(comparison: Comparison, measure: Measure) -> Findings:
    """Tests on the mean over seeds of each case; no pairs with one method, no ranking with fewer than three."""
    values = {method.label: comparison.case_values(method.runs, measure) for method in comparison.methods}
    if len(values) < 2 or not measure.ranks or measure.reduction == "micro":
        return Findings(measure, (), None)
    ranking = None
    complete = np.asarray(np.isfinite(np.stack(list(values.values()))).all(axis=0))
    subjects = {subject for subject, keep in zip(comparison.subjects, complete, strict=True) if keep}
    if len(values) >= 3 and len(subjects) >= 2:
        ranking = friedman_nemenyi(values, comparison.subjects, measure.lower_is_better)
    return Findings(measure, tuple(paired_tests(values, comparison.subjects)), ranking)


def reading(table: ResultTable, tests: list[Findings]) -> list[str]:
    """A sentence a measure: which method has the best mean, and which others the data do not tell apart from it."""
    sentences = []
    methods = [row for row in table.rows if row.kind == "method"]
    by_measure = {item.measure: item for item in tests}
    for index, measure in enumerate(table.measures):
        cells = {row.label: row.cells[index].interval for row in methods}
        finite = {label: cell for label, cell in cells.items() if np.isfinite(cell.value)}
        if len(finite) < 2 or not measure.ranks:
            continue
        direction = 1 if measure.lower_is_better else -1
        best = min(finite, key=lambda label: direction * finite[label].value)
        word = "Lowest" if measure.lower_is_better else "Highest"
        unit = f" {measure.unit}" if measure.unit else ""
        sentence = f"{word} {measure.label}: {best}, {figure_text(finite[best].value)}{unit}."
        pairs = [test for test in by_measure[measure].pairs if best in (test.first, test.second)]
        if pairs:
            others = [test.first if test.second == best else test.second for test in pairs if not test.p_holm < LEVEL]
            sentence += (
                f" Not told apart from it on these cases: {', '.join(others)}."
                if others
                else " Every other differs significantly (Holm)."
            )
        sentences.append(sentence)
    return sentences


def tests_csv(tests: list[Findings]) -> str:
    """Every paired test, one a line."""
    columns = ["measure", "first", "second", "difference", "low", "high", "p", "p_holm", "subjects"]
    rows = [
        [item.measure.title, test.first, test.second, *test.difference, test.p_value, test.p_holm, test.num_subjects]
        for item in tests
        for test in item.pairs
    ]
    return csv_text(columns, rows)


def pair_cells(test: PairedTest) -> tuple[str, str, str, str]:
    """Difference, interval, p and Holm's p as the page prints them."""
    value, low, high = test.difference
    interval = f"{low:+.4f} to {high:+.4f}" if np.isfinite(low) else "–"
    difference = f"{value:+.4f}" if np.isfinite(value) else "–"
    return difference, interval, p_text(test.p_value).removeprefix("= "), p_text(test.p_holm).removeprefix("= ")
