"""Which runs may stand in one table: seeds of a method grouped, methods measured alike on the same cases compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .grouping import Identity, group_seeds, labels_of
from .measures import Measure
from .protocols import Protocol
from .runs import Run
from .statistics import Interval, bootstrap_mean

__all__ = ["Comparison", "Estimate", "Method", "compare"]


@dataclass(frozen=True)
class Estimate:
    """A method's figure: mean with its interval over subjects, spread over seeds, and how many cases have none."""

    interval: Interval
    spread: float
    undefined: int


@dataclass(frozen=True)
class Method:
    """Runs that differ in nothing but the seed; those that did not converge stand apart, out of every mean.

    ``place`` is the number of its training and, among what was fitted on that afterwards, its own: 0 for the training
    as it is. Figures draw one training in one colour.
    """

    label: str
    runs: tuple[Run, ...]
    failed: tuple[Run, ...]
    place: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Comparison:
    """Methods measured by the same protocols, on the same classes and cases."""

    methods: tuple[Method, ...]
    failed: tuple[Method, ...]
    class_names: tuple[str, ...]
    protocols: tuple[Protocol, ...]
    cases: tuple[str, ...]
    subjects: tuple[str, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(run for method in (*self.methods, *self.failed) for run in (*method.runs, *method.failed))

    def overlap_measures(self) -> list[Measure]:
        """DSC and HD95, as far as any run measured them."""
        return self._measured("dsc", "hd95_mm")

    def volume_measures(self) -> list[Measure]:
        """Errors of the foreground's volume, as far as any run measured them."""
        return self._measured("expected_volume_error", "argmax_volume_error")

    def cost_measures(self) -> list[Measure]:
        """Seconds of training, if any run knows them."""
        known = any(np.isfinite(run.train_seconds) for run in self.runs)
        return [Measure("train_seconds", "train_seconds")] if known else []

    def _measured(self, *kinds: str) -> list[Measure]:
        measured = {key for run in self.runs for key in run.values}
        return [Measure(kind, kind) for kind in kinds if kind in measured]

    def calibration_measures(self, protocol: Protocol, region: str, reduction: str) -> list[Measure]:
        """The figures of a protocol in one of its regions, in the protocol's order, as far as any run has them."""
        measures = []
        for kind in protocol.measures:
            for stem in dict.fromkeys((f"{kind}_{region}_{protocol.num_bins}bins", f"{kind}_{region}")):
                key = f"{stem}_{reduction}"
                if any(key in run.summary for run in self.runs):
                    measures.append(Measure(kind, stem, key, protocol, region, reduction))
                    break
        return measures

    def case_values(self, runs: Iterable[Run], measure: Measure) -> NDArray[np.float64]:
        """``(cases,)``: mean over the runs, in this comparison's order of cases; NaN where a run has no figure."""
        return np.mean([self._aligned(run, run.values.get(measure.case_key)) for run in runs], axis=0)

    def class_values(self, runs: Iterable[Run], measure: Measure) -> NDArray[np.float64] | None:
        """``(cases, classes)``: mean over the runs, or None if the measure has no figure a class."""
        tables = [run.class_values.get(measure.case_key) for run in runs]
        if any(table is None for table in tables):
            return None
        return np.mean([self._aligned(run, table) for run, table in zip(runs, tables, strict=True)], axis=0)

    def estimate(self, runs: Sequence[Run], measure: Measure) -> Estimate:
        """The runs' figure. Spread is the standard deviation over seeds, NaN for one run."""
        if not measure.has_cases:
            return self._estimate_of_runs([self.mean_of(run, measure) for run in runs])
        values = self.case_values(runs, measure)
        finite = np.isfinite(values)
        interval = bootstrap_mean(values, self.subjects)
        per_run = [self.mean_of(run, measure) for run in runs]
        return Estimate(interval, _spread(per_run), int((~finite).sum()))

    def _estimate_of_runs(self, values: list[float]) -> Estimate:
        """Without an interval: the mean over cases is another figure than the pooled one, and so is its interval."""
        known = [value for value in values if np.isfinite(value)]
        mean = float(np.mean(known)) if known else float("nan")
        return Estimate(Interval(mean, float("nan"), float("nan")), _spread(known), 0)

    def mean_of(self, run: Run, measure: Measure) -> float:
        """A run's own figure: over cases, or pooled, or its cost."""
        if measure.kind == "train_seconds":
            return run.train_seconds
        if measure.reduction == "micro":
            return run.summary.get(measure.summary_key or "", float("nan"))
        values = self.case_values([run], measure)
        finite = values[np.isfinite(values)]
        return float(finite.mean()) if len(finite) else float("nan")

    def _aligned(self, run: Run, values: NDArray[np.float64] | None) -> NDArray[np.float64]:
        if values is None:
            return np.full(len(self.cases), np.nan)
        position = {case: index for index, case in enumerate(run.cases)}
        return values[[position[case] for case in self.cases]]


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def compare(runs: Sequence[Run]) -> list[Comparison]:
    """Sorts runs into comparisons: one for each set of class names, protocols and cases, in the order they come.

    Runs of one comparison whose settings are equal but for the seed become one :class:`Method`, named by its loss and
    by whatever else tells it from the others. What was fitted on a training afterwards follows it.

    Raises: :class:`~.case_tables.RunError` if a method has two evaluations of one seed.
    """
    alike: dict[Any, list[Run]] = {}
    for run in runs:
        alike.setdefault((run.class_names, run.protocols, frozenset(run.cases)), []).append(run)
    return [_comparison(group) for group in alike.values()]


def _comparison(runs: list[Run]) -> Comparison:
    first = runs[0]
    groups = group_seeds(runs)
    labels = labels_of([dict(identity) for identity in groups])
    trainings: dict[Identity, int] = {}
    variants: dict[Identity, int] = {}
    methods = []
    for label, (identity, members) in zip(labels, groups.items(), strict=True):
        training = tuple(pair for pair in identity if not pair[0].startswith("posthoc"))
        fitted = tuple(pair for pair in identity if pair[0].startswith("posthoc"))
        number = trainings.setdefault(training, len(trainings))
        variant = variants.setdefault(fitted, len(variants) + 1) if fitted else 0
        failed = tuple(run for run in members if run.missed_classes())
        done = tuple(run for run in members if run not in failed)
        methods.append(Method(label, done, failed, (number, variant)))
    methods.sort(key=lambda method: method.place)
    return Comparison(
        methods=tuple(method for method in methods if method.runs),
        failed=tuple(method for method in methods if not method.runs),
        class_names=first.class_names,
        protocols=first.protocols,
        cases=first.cases,
        subjects=first.subjects,
    )
