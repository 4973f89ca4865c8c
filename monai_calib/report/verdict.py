"""The page's first screen: what to ship, how far to trust it, and what to beware of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from monai_calib.metrics.protocols import Protocol
from monai_calib.metrics.regions import Region

from .choice import VALIDATION
from .columns import Column
from .comparison import Comparison, Estimate, Method
from .corrections import corrections_of
from .figures import Figure
from .findings import Findings
from .reliability import MOST_BANDS, overlaid_reliability, pooled
from .shipping import Shipped
from .statistics import Interval, bootstrap_mean
from .tables import figure_text

__all__ = ["Mark", "Verdict", "mark_of", "verdict_of"]

SAID = 0.9
"""The confidence whose accuracy is told."""
FEW_SUBJECTS = 20
# Beyond these, the table shows what is shipped and its training alone.
MOST_METHODS = 20
_WORDS = {"better": "better", "worse": "worse", "open": "not told apart", "equal": "unchanged", "": ""}
_SIGNS = {"better": "✓", "worse": "✗", "open": "≈", "equal": "=", "": ""}


@dataclass(frozen=True)
class Mark:
    """A figure and how it moved against the training as it is: ``better``, ``worse``, ``open``, ``equal`` or ""."""

    estimate: Estimate
    change: Interval | None
    verdict: str

    @property
    def sign(self) -> str:
        return _SIGNS[self.verdict]

    @property
    def words(self) -> str:
        return _WORDS[self.verdict]


@dataclass(frozen=True)
class Verdict:
    """The first screen of one comparison; ``rows`` has method, whether it is to be shipped, and a mark a column.

    ``truth`` says what the figures are against where that is no label.
    """

    shipped: Shipped
    trust: str
    truth: str
    columns: tuple[tuple[str, Column], ...]
    rows: tuple[tuple[str, bool, tuple[Mark, ...]], ...]
    beware: tuple[str, ...]
    figure: Figure | None

    @property
    def marked(self) -> bool:
        """Whether any figure has one to be compared with."""
        return any(mark.verdict for _, _, marks in self.rows for mark in marks)


def verdict_of(
    comparison: Comparison, shipped: Shipped, tests: Sequence[Findings], others: Sequence[str] = ()
) -> Verdict:
    """The first screen.

    Args:
        comparison: what the page compares.
        shipped: of this comparison.
        tests: all that were made of it.
        others: names of the page's other comparisons.
    """
    columns = _columns(comparison)
    shown = _shown(comparison, shipped.method)
    rows = tuple(
        (method.label, method is shipped.method, tuple(mark_of(comparison, method, column) for _, column in columns))
        for method in shown
    )
    place = _place(comparison)
    few = len(comparison.methods) <= MOST_BANDS
    drawn = list(comparison.methods) if few else _before_and_after(comparison, shipped.method)
    figure = None
    if place is not None and drawn:
        figure = overlaid_reliability(replace(comparison, methods=tuple(drawn)), *place)
        if figure is not None:
            figure = replace(figure, key=f"first-{figure.key}")
    trust, direction = ("", "") if shipped.method is None or place is None else _trust(shipped.method, *place)
    beware = [*_worse(comparison, shipped.method), direction, *_fit(comparison, shipped.method)]
    return Verdict(
        shipped,
        trust,
        _truth(comparison),
        columns,
        rows,
        (*filter(None, beware), *_data(comparison, tests, others)),
        figure,
    )


def _columns(comparison: Comparison) -> tuple[tuple[str, Column], ...]:
    """DSC, ECE of the whole volume and of the boundary's band, NLL and volume error, as far as they were measured."""
    words = _words(comparison)
    asked = [*(("DSC", column) for column in comparison.columns_of_kind("dice")[:1])]
    for kind, head in (("ece", "all"), ("ece", "boundary"), ("nll", "all")):
        for column in _calibration(comparison):
            if column.kind == kind and (column.metric.region or "").startswith(head):
                asked.append((f"{column.label}, {words.get(column.metric.region or 'all', '')}", column))
                break
    asked += [("Volume error", column) for column in comparison.columns_of_kind("expected_volume_error")[:1]]
    known = comparison.columns_of_kind("posterior_distance")  # of a phantom; near boundaries, if there is a choice
    asked += [("Distance to the truth", column) for column in known[-1:]]
    return tuple(asked)


def _words(comparison: Comparison) -> dict[str, str]:
    """The protocols' regions in words, by their names in metrics."""
    regions = [Region.parse(region) for protocol in comparison.protocols for region in protocol.regions]
    return {region.name: region.words for region in regions}


def _calibration(comparison: Comparison) -> list[Column]:
    """Every protocol's figures in all of its regions, each case counting once."""
    return [
        column
        for protocol in comparison.protocols
        for region in map(Region.parse, protocol.regions)
        for column in comparison.calibration_columns(protocol, region, "macro")
    ]


def _as_trained(comparison: Comparison, method: Method) -> Method | None:
    """The training that a method corrects, None for a training."""
    if not method.place[1]:
        return None
    return next((other for other in comparison.methods if other.place == (method.place[0], 0)), None)


def _before_and_after(comparison: Comparison, method: Method | None) -> list[Method]:
    """The training and the correction to ship, or the one of them that there is."""
    if method is None:
        return []
    before = _as_trained(comparison, method)
    return [method] if before is None else [before, method]


def _shown(comparison: Comparison, method: Method | None) -> list[Method]:
    if len(comparison.methods) <= MOST_METHODS:
        return list(comparison.methods)
    return _before_and_after(comparison, method)


def mark_of(comparison: Comparison, method: Method, column: Column) -> Mark:
    """A method's figure, and its change from the training as it is with the 95 % interval over subjects.

    Better or worse only where the whole interval is: what it holds 0 of is open, what moves in no case is equal.
    """
    estimate = comparison.estimate(method.runs, column)
    before = _as_trained(comparison, method)
    if before is None:
        return Mark(estimate, None, "")
    difference = comparison.case_values(method.runs, column) - comparison.case_values(before.runs, column)
    finite = difference[np.isfinite(difference)]
    if not len(finite):
        return Mark(estimate, None, "")
    change = bootstrap_mean(difference, comparison.subjects)
    if not finite.any():
        return Mark(estimate, change, "equal")
    gain = change.negated() if column.lower_is_better else change
    if gain.low > 0:
        return Mark(estimate, change, "better")
    return Mark(estimate, change, "worse" if gain.high < 0 else "open")


def _place(comparison: Comparison) -> tuple[Protocol, Region] | None:
    """Protocol and region of the reliability: the whole volume, or the first region measured where that was not."""
    found = [
        (protocol, region)
        for protocol in comparison.protocols
        for region in map(Region.parse, protocol.regions)
        if any((region.name, protocol.num_bins) in run.bins for run in comparison.runs)
    ]
    return next((item for item in found if item[1].kind == "all"), found[0] if found else None)


def _trust(method: Method, protocol: Protocol, region: Region) -> tuple[str, str]:
    """Sentences on the bin of 90 %: how often it is right there, and which way it errs if the interval says so."""
    bins = pooled(method, protocol, region)
    if bins is None:
        return "", ""
    at = min(int(np.searchsorted(bins.edges, SAID, side="left")) - 1, len(bins.count) - 1)
    said, right, low, high = (float(part[at]) for part in (bins.confidence, bins.accuracy, bins.low, bins.high))
    if not bins.count[at]:
        return f"No voxel of the {region.words} has a confidence near {SAID:.0%}.".replace("%", " %"), ""
    about = f"Where it says {100 * said:.0f} %, it is right in "
    where = f" ({region.words}, confidence {100 * bins.edges[at]:.0f} to {100 * bins.edges[at + 1]:.0f} %)"
    if not np.isfinite(low):
        return f"{about}{100 * right:.0f} %{where}; one subject gives no interval.", ""
    sentence = f"{about}{100 * low:.0f}–{100 * high:.0f} %{where}."
    if low > said:
        return sentence, f"Under-confident: where it says {100 * said:.0f} %, it is right in {100 * right:.0f} %."
    if high < said:
        return sentence, f"Over-confident: where it says {100 * said:.0f} %, it is right in {100 * right:.0f} %."
    return sentence, ""


def _truth(comparison: Comparison) -> str:
    """A sentence on the truth, where it is the known probability of each class."""
    if any(run.settings.get("truth") != "posterior" for run in comparison.runs):
        return ""
    return (
        "The truth is known here: figures of calibration, NLL and volume are against the probability from which each "
        f"label was drawn, not against the one label. {_distance(comparison)}DSC and HD95 are against that label."
    )


def _distance(comparison: Comparison) -> str:
    """A sentence on the column of distances, if it is there."""
    known = comparison.columns_of_kind("posterior_distance")[-1:]
    where = [_words(comparison).get(column.metric.region or "", "") for column in known]
    return "".join(f"The distance is that of the probabilities, {words}. " for words in where)


def _worse(comparison: Comparison, method: Method | None) -> list[str]:
    """Every figure of the first screen, and NLL and ECE of every region, that got worse by the correction."""
    before = None if method is None else _as_trained(comparison, method)
    if method is None or before is None:
        return []
    first = [column for _, column in _columns(comparison)]
    more = [
        c for c in _calibration(comparison) if c.kind in ("ece", "nll") and c.metric not in [f.metric for f in first]
    ]
    words, told = _words(comparison), []
    for column in (*first, *more):
        if mark_of(comparison, method, column).verdict == "worse":
            old, new = (comparison.estimate(m.runs, column).interval.value for m in (before, method))
            where = f" ({words[column.metric.region]})" if column.metric.region in words else ""
            told.append(f"{column.label}{where} {figure_text(old)} → {figure_text(new)}")
    return [f"Worse than as trained: {'; '.join(told)}."] if told else []


def _fit(comparison: Comparison, method: Method | None) -> list[str]:
    """Warnings of the correction's own record."""
    if method is None:
        return []
    told = []
    mine = corrections_of(replace(comparison, methods=(method,), failed=()))
    if any(item.flattering for item in mine):
        told.append("The correction was fitted on the cases shown here, so its figures flatter. Evaluate other cases.")
    guards = list(dict.fromkeys(sentence for item in mine for sentence in item.worse))
    if guards:
        told.append(f"On cases held out of the fit: {'; '.join(guards)}.")
    unfinished = list(dict.fromkeys(item.status for item in mine if item.status not in ("", "converged")))
    if unfinished:
        told.append(f"The fit did not converge: {', '.join(unfinished)}.")
    return told


def _data(comparison: Comparison, tests: Sequence[Findings], others: Sequence[str]) -> list[str]:
    """Sentences on what the cases cannot tell."""
    told = []
    subjects = len(set(comparison.subjects))
    if subjects < FEW_SUBJECTS:
        told.append(f"Few subjects: {subjects}. Intervals are rough, and rare failures are not in them.")
    hopeless = next((item.hopeless for item in tests if item.hopeless), "")
    if hopeless:
        told.append(f"{hopeless}.")
    if any(run.split in VALIDATION for run in comparison.runs):
        told.append("These are validation cases, which served to choose; they are no test.")
    if others:
        told.append(f"This page has other parts, of which this box says nothing: {'; '.join(others)}.")
    told.append("Another scanner, hospital or kind of patient: nothing here tells of it.")
    return told
