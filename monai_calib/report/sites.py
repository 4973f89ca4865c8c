"""The same networks on several data sets side by side, and what a correction gains or loses elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .choice import VALIDATION
from .columns import Column
from .comparison import Comparison, Estimate, Method
from .grouping import Identity, identity_of
from .statistics import Interval, bootstrap_mean

__all__ = ["HOME", "SiteRow", "Sites", "sites_of"]

HOME = "home"
"""Name of the data set of evaluations that name no site: the one the network was trained for."""
_OF_A_PLACE = ("site", "split")
_KINDS = ("ece", "nll")


@dataclass(frozen=True)
class SiteRow:
    """A method on one data set; of a correction also the change of each figure from the training as it is."""

    method: str
    site: str
    cases: int
    subjects: int
    cells: tuple[Estimate, ...]
    changes: tuple[Interval | None, ...]


@dataclass(frozen=True)
class Sites:
    """Methods that were evaluated on several data sets; the sentences tell what becomes of the corrections."""

    columns: tuple[Column, ...]
    rows: tuple[SiteRow, ...]
    readings: tuple[str, ...]


def sites_of(comparisons: Sequence[Comparison]) -> Sites | None:
    """Put the evaluations of each method on several data sets beside each other; None where no run names a site.

    Evaluations without a site are ``home``, those of the validation split left out. What is compared are the overlap
    and, of each protocol's first region, ECE and NLL.
    """
    by_site: dict[str, Comparison] = {}
    for comparison in comparisons:
        for run in comparison.runs[:1]:
            site = run.settings.get("site")
            if site or run.split not in VALIDATION:
                by_site.setdefault(str(site or HOME), comparison)
    if not set(by_site) - {HOME} or len(by_site) < 2:
        return None
    columns = _columns(list(by_site.values()))
    found: dict[Identity, dict[str, tuple[Method, Comparison]]] = {}
    for site, comparison in by_site.items():
        for method in comparison.methods:
            found.setdefault(_who(method), {})[site] = method, comparison
    order = sorted(by_site, key=lambda site: (site != HOME, site))
    rows, readings = [], []
    for identity, places in found.items():
        if len(places) < 2:
            continue
        label = next(iter(places.values()))[0].label
        trained = tuple(pair for pair in identity if not pair[0].startswith("posthoc"))
        plain = found.get(trained, {}) if trained != identity else {}
        of_method = [_row(label, site, columns, *places[site], plain.get(site)) for site in order if site in places]
        rows += of_method
        readings += _readings(of_method, columns)
    return Sites(columns, tuple(rows), tuple(readings)) if rows else None


def _columns(comparisons: Sequence[Comparison]) -> tuple[Column, ...]:
    """Columns that all of the comparisons have."""
    first = comparisons[0]
    chosen = first.overlap_columns()[:1]
    for protocol in first.protocols:
        region, reduction = protocol.case_metrics(first.class_names)[0].region, protocol.reductions[0]
        chosen += [
            Column(metric, reduction, protocol.name)
            for metric in protocol.case_metrics(first.class_names)
            if metric.region == region and metric.kind in _KINDS
        ]
    shared = set.intersection(*({name for run in one.runs for name in run.values} for one in comparisons))
    return tuple(column for column in chosen if column.metric.name in shared and column.has_cases)


def _who(method: Method) -> Identity:
    pairs = identity_of((method.runs or method.failed)[0].settings)
    return tuple(pair for pair in pairs if pair[0] not in _OF_A_PLACE)


def _row(
    label: str,
    site: str,
    columns: Sequence[Column],
    method: Method,
    comparison: Comparison,
    plain: tuple[Method, Comparison] | None,
) -> SiteRow:
    cells = tuple(comparison.estimate(method.runs, column) for column in columns)
    changes: tuple[Interval | None, ...] = (None,) * len(columns)
    if plain is not None and plain[1] is comparison:
        seeds = {run.seed for run in method.runs} & {run.seed for run in plain[0].runs}
        after, before = ([run for run in runs if run.seed in seeds] for runs in (method.runs, plain[0].runs))
        if seeds:
            changes = tuple(
                bootstrap_mean(
                    comparison.case_values(after, column) - comparison.case_values(before, column), comparison.subjects
                )
                for column in columns
            )
    return SiteRow(label, site, len(comparison.cases), len(set(comparison.subjects)), cells, changes)


def _readings(rows: Sequence[SiteRow], columns: Sequence[Column]) -> list[str]:
    """A sentence on each figure that a correction improves at home, and what is left of that elsewhere."""
    home = next((row for row in rows if row.site == HOME), None)
    told: list[str] = []
    if home is None:
        return told
    for number, column in enumerate(columns):
        gain = _gain(home.changes[number], column)
        if gain is None or not gain.low > 0:
            continue
        for row in rows:
            there = _gain(row.changes[number], column) if row is not home else None
            if there is None or not math.isfinite(there.value):
                continue
            what = f"{row.method}: {column.title} gains {gain.value:.3g} at home"
            interval = f"{there.value:.3g} ({there.low:.3g} … {there.high:.3g})"
            if there.high < 0:
                told.append(f"{what} and loses at {row.site}: {interval}.")
            elif there.low > 0:
                told.append(
                    f"{what} and keeps {100 * there.value / gain.value:.0f} % of that at {row.site}: {interval}."
                )
            else:
                told.append(f"{what}; at {row.site} no gain is seen: {interval}.")
    return told


def _gain(change: Interval | None, column: Column) -> Interval | None:
    """The change turned so that more is better."""
    if change is None or not column.ranks:
        return None
    return change.negated() if column.lower_is_better else change
