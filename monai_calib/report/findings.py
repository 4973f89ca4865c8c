"""Which differences are real: rankings and paired tests of a column, and what they say in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_calib.words import counted

from .columns import TRAINING, Column
from .comparison import Comparison
from .figures import p_text
from .statistics import PairedTest, Ranking, friedman_nemenyi, paired_tests
from .tables import ResultTable, csv_text, figure_text

__all__ = ["LEVEL", "Findings", "findings", "pair_cells", "pair_columns", "pair_row", "reading", "tests_csv"]

LEVEL = 0.05


@dataclass(frozen=True)
class Findings:
    """Tests of one column: pairs of methods, and the ranking of three or more.

    ``seed_means[method][seed]`` is a run's mean, from which :meth:`seeds` counts.
    """

    column: Column
    pairs: tuple[PairedTest, ...]
    ranking: Ranking | None
    seed_means: Mapping[str, Mapping[str, float]]

    def seeds(self, test: PairedTest) -> tuple[int, int]:
        """Count the seeds that both methods were trained with, and those whose difference has the sign of the mean.

        Subjects say whether a difference holds for other patients; seeds, whether it holds for another training.
        """
        first, second = self.seed_means[test.first], self.seed_means[test.second]
        shared = [seed for seed in first if seed in second]
        alike = [seed for seed in shared if (first[seed] - second[seed]) * test.difference.value > 0]
        return len(alike), len(shared)

    @property
    def least_p(self) -> float:
        """Smallest p after Holm's correction that these tests can give: every subject's difference of one sign.

        Of ``n`` subjects Wilcoxon's exact p is at least ``2 / 2^n``, and Holm multiplies the smallest by the pairs.
        """
        subjects = max((test.num_subjects for test in self.pairs), default=0)
        return min(1.0, len(self.pairs) * 2.0 ** (1 - subjects))

    @property
    def hopeless(self) -> str:
        """Sentence saying that no test here can reach the level, "" if one can."""
        if not self.pairs or self.least_p < LEVEL:
            return ""
        subjects = counted(max(test.num_subjects for test in self.pairs), "subject")
        return (
            f"With {subjects} and {counted(len(self.pairs), 'pair')} no test can tell methods apart: the smallest p "
            f"possible is {self.least_p:.2g}"
        )

    def against_best(self) -> list[PairedTest]:
        """The pairs of the method with the best mean over subjects, each as "other minus best"."""
        if not self.pairs:
            return []
        # The sum of a method's differences to all others orders methods by their means.
        balance: dict[str, float] = {}
        for test in self.pairs:
            step = float(np.nan_to_num(test.difference.value))
            balance[test.first] = balance.get(test.first, 0.0) + step
            balance[test.second] = balance.get(test.second, 0.0) - step
        direction = 1 if self.column.lower_is_better else -1
        best = min(balance, key=lambda name: direction * balance[name])
        return [test if test.second == best else _turned(test) for test in self.pairs if best in test[:2]]


def _turned(test: PairedTest) -> PairedTest:
    return test._replace(first=test.second, second=test.first, difference=test.difference.negated())


def findings(comparison: Comparison, column: Column) -> Findings:
    """Tests on the mean over seeds of each case; no pairs with one method, no ranking with fewer than three."""
    values = {method.label: comparison.case_values(method.runs, column) for method in comparison.methods}
    if len(values) < 2 or not column.ranks or not column.has_cases:
        return Findings(column, (), None, {})
    ranking = None
    complete = np.asarray(np.isfinite(np.stack(list(values.values()))).all(axis=0))
    subjects = {subject for subject, keep in zip(comparison.subjects, complete, strict=True) if keep}
    if len(values) >= 3 and len(subjects) >= 2:
        ranking = friedman_nemenyi(values, comparison.subjects, column.lower_is_better)
    seed_means = {
        method.label: {run.seed: comparison.mean_of(run, column) for run in method.runs}
        for method in comparison.methods
    }
    return Findings(column, tuple(paired_tests(values, comparison.subjects)), ranking, seed_means)


def reading(table: ResultTable, tests: list[Findings]) -> list[str]:
    """A sentence a column: which method has the best mean, and which others the data do not tell apart from it."""
    sentences = []
    methods = [row for row in table.rows if row.kind == "method"]
    by_column = {item.column: item for item in tests}
    for index, column in enumerate(table.columns):
        cells = {row.label: row.cells[index].interval for row in methods}
        finite = {label: cell for label, cell in cells.items() if np.isfinite(cell.value)}
        if len(finite) < 2 or not column.ranks or column.metric == TRAINING:
            continue
        direction = 1 if column.lower_is_better else -1
        best = min(finite, key=lambda label: direction * finite[label].value)
        word = "Lowest" if column.lower_is_better else "Highest"
        unit = f" {column.unit}" if column.unit else ""
        sentence = f"{word} {column.label}: {best}, {figure_text(finite[best].value)}{unit}."
        pairs = [test for test in by_column[column].pairs if best in (test.first, test.second)]
        if pairs:
            others = [test.first if test.second == best else test.second for test in pairs if not test.p_holm < LEVEL]
            if by_column[column].hopeless:
                sentence += f" {by_column[column].hopeless}."
            else:
                sentence += (
                    f" Not told apart from it on these cases: {', '.join(others)}."
                    if others
                    else " Every other differs significantly (Holm)."
                )
        sentences.append(sentence)
    return sentences


def tests_csv(tests: list[Findings]) -> str:
    """Every paired test, one a line."""
    return csv_text(pair_columns(), [pair_row(item, test) for item in tests for test in item.pairs])


def pair_columns() -> list[str]:
    return [
        *("metric", "first", "second", "difference", "low", "high", "p", "p_holm", "subjects"),
        *("seeds_alike", "seeds"),
    ]


def pair_row(item: Findings, test: PairedTest) -> list[Any]:
    figures = [*test.difference, test.p_value, test.p_holm, test.num_subjects, *item.seeds(test)]
    return [item.column.title, test.first, test.second, *figures]


def pair_cells(test: PairedTest) -> tuple[str, str, str, str]:
    """Difference, interval, p and Holm's p as the page prints them."""
    value, low, high = test.difference
    interval = f"{low:+.4f} to {high:+.4f}" if np.isfinite(low) else "–"
    difference = f"{value:+.4f}" if np.isfinite(value) else "–"
    return difference, interval, p_text(test.p_value).removeprefix("= "), p_text(test.p_holm).removeprefix("= ")
