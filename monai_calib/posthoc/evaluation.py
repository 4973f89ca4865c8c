"""Before and after: the protocols' figures of a network as it is, and with each correction, from one pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from monai_calib.metrics.bootstrap import bootstrap_difference
from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.metric import Metric
from monai_calib.metrics.protocols import Protocol, measure, resolve_protocols
from monai_calib.metrics.regions import Region
from monai_calib.metrics.serial import array_to_json
from monai_calib.posthoc.base import Calibrator
from monai_calib.posthoc.stream import LogitCase

__all__ = ["BEFORE", "Comparison", "compare"]

BEFORE = "before"


class Comparison(NamedTuple):
    """Figures by method, ``"before"`` first.

    ``summary[method][name]`` holds reported figures, as ``ece_union_15bins_macro``; ``cases[case][method][name]``
    those of one case, as ``ece_union_15bins``; ``change[method][name]`` the mean over cases of after minus before with
    its 95 % bootstrap interval, resampling subjects; ``labels_changed[method]`` counts voxels whose label is another
    than before.
    ``bins[method][region]``, ``(cases, 3, num_bins)``, has voxels, hits and summed confidence of the top label in each
    bin of the reliability diagram. NaN where a region is empty.
    """

    summary: dict[str, dict[str, float]]
    cases: dict[str, dict[str, dict[str, float]]]
    change: dict[str, dict[str, tuple[float, float, float]]]
    labels_changed: dict[str, int]
    voxels: int
    bins: dict[str, dict[str, Tensor]]

    def to_json(self) -> dict[str, Any]:
        """Plain values, null for NaN."""
        return {
            "summary": _plain(self.summary),
            "change": _plain(self.change),
            "labels_changed": self.labels_changed,
            "voxels": self.voxels,
            "cases": _plain(self.cases),
            "bins": {
                method: {region: array_to_json(table.numpy()) for region, table in tables.items()}
                for method, tables in self.bins.items()
            },
        }

    def table(self) -> str:
        """A Markdown table, one figure a row and one method a column."""
        methods = list(self.summary)
        lines = ["| figure | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
        for name in self.summary[BEFORE]:
            lines.append(f"| {name} | " + " | ".join(f"{self.summary[m][name]:.4f}" for m in methods) + " |")
        counts = [f"{self.labels_changed.get(m, 0)} of {self.voxels}" for m in methods]
        return "\n".join([*lines, "| voxels with another label | " + " | ".join(counts) + " |"])


def compare(
    calibrators: Mapping[str, Calibrator],
    cases: Iterable[LogitCase],
    protocols: Sequence[str | Mapping[str, Any] | Protocol] = ("paper", "recommended"),
) -> Comparison:
    """Measure the network as it is and with each correction, by protocol, in one pass over the cases.

    Cases of the fit flatter what was fitted on them, methods with many parameters most of all: compare on others.

    Args:
        calibrators: fitted methods by the name they get in the table.
        cases: a list, or a :class:`~.stream.LogitStream`.
        protocols: see :class:`~monai_calib.metrics.protocols.Protocol`.

    Raises: ``ValueError`` for no case.

    Example:
        >>> from monai_calib.posthoc import TemperatureScaling
        >>> cool = TemperatureScaling(2)
        >>> cool.set_temperature(4.0)
        >>> logits = torch.tensor([[3.0, 3.0], [0.0, 0.0]])
        >>> case = LogitCase("a", logits, torch.tensor([1, 0]))
        >>> comparison = compare({"cool": cool}, [case], [Protocol("whole", ["all"], ["ece"])])
        >>> [round(row["ece_all_15bins_macro"], 3) for row in comparison.summary.values()]
        [0.453, 0.179]
    """
    resolved = resolve_protocols(protocols)
    metrics = _metrics(resolved)
    regions = {region.name: region for protocol in resolved for region in map(Region.parse, protocol.regions)}
    names = [BEFORE, *calibrators]
    pooled: dict[str, dict[str, CalibrationHistogram]] = {method: {} for method in names}
    by_case: dict[str, dict[str, dict[str, float]]] = {}
    # Where protocols bin a region differently, the last one has its diagram.
    num_bins = {Region.parse(region).name: protocol.num_bins for protocol in resolved for region in protocol.regions}
    bins: dict[str, dict[str, list[Tensor]]] = {method: {name: [] for name in regions} for method in names}
    labels_changed, voxels = dict.fromkeys(calibrators, 0), 0
    subjects: list[str] = []
    for case in cases:
        image = None if case.image is None else case.image[None]
        rows = by_case[_unused(case.name, by_case)] = {}
        labels = case.logits.argmax(0)
        voxels += labels.numel()
        subjects.append(case.subject)
        for method in names:
            logits = case.logits[None] if method == BEFORE else calibrators[method].apply(case.logits[None], image)
            if method != BEFORE:
                labels_changed[method] += int((logits[0].argmax(0) != labels).sum())
            histograms = {}
            for name, region in regions.items():
                histogram = histograms[name] = CalibrationHistogram(len(case.logits))
                # The same voxels before and after: regions are drawn from the labels before.
                histogram.update(logits, case.label[None], mask=case.mask(region)[None], strict=False)
                pooled[method].setdefault(name, histogram.empty_like()).merge(histogram)
                row = histogram.bins(num_bins[name])
                bins[method][name].append(torch.stack([row.count.double(), row.hits.double(), row.confidence]))
            rows[method] = {name: _value(metric, histograms) for name, metric in metrics.items()}
    if not by_case:
        raise ValueError("no case to compare on: the loader is empty")
    summary = {method: _summary(method, resolved, by_case, pooled[method]) for method in names}
    change: dict[str, dict[str, tuple[float, float, float]]] = {method: {} for method in calibrators}
    for method, changes in change.items():
        before, after = ([list(row[which].values()) for row in by_case.values()] for which in (BEFORE, method))
        found = bootstrap_difference(before, after, groups=subjects)
        bounds = zip(found.value.tolist(), found.low.tolist(), found.high.tolist(), strict=True)
        changes |= dict(zip(metrics, bounds, strict=True))
    stacked = {method: {name: torch.stack(rows) for name, rows in tables.items()} for method, tables in bins.items()}
    return Comparison(summary, by_case, change, labels_changed, voxels, stacked)


def _summary(
    method: str,
    protocols: Sequence[Protocol],
    by_case: Mapping[str, Mapping[str, Mapping[str, float]]],
    pooled: Mapping[str, CalibrationHistogram],
) -> dict[str, float]:
    summary = {}
    for protocol in protocols:
        for name, metric in _metrics([protocol]).items():
            for reduction in protocol.reductions:
                if reduction == "macro":
                    value = _mean([rows[method][name] for rows in by_case.values()])
                else:
                    value = _value(metric, pooled)
                summary[metric.reduced(reduction).name] = value
    return summary


def _mean(values: Sequence[float]) -> float:
    kept = [value for value in values if not math.isnan(value)]
    return math.fsum(kept) / len(kept) if kept else math.nan


def _metrics(protocols: Sequence[Protocol]) -> dict[str, Metric]:
    # The names of classes do not matter: a metric per class counts with its mean.
    return {metric.name: metric for protocol in protocols for metric in protocol.case_metrics(["classes"])}


def _value(metric: Metric, histograms: Mapping[str, CalibrationHistogram]) -> float:
    assert metric.region is not None
    return _mean(measure(metric, histograms[metric.region]))


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    number = 2
    unused = name
    while unused in taken:
        unused, number = f"{name} ({number})", number + 1
    return unused


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
