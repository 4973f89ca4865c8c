"""Which runs may stand in one table: seeds of a method grouped, methods measured alike on the same cases compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_calib.metrics.metric import Metric
from monai_calib.metrics.protocols import Protocol
from monai_calib.metrics.regions import Region

from .columns import TRAINING, Column
from .grouping import Identity, group_seeds, labels_of
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

    @property
    def metrics(self) -> dict[str, Metric]:
        """Descriptions of what any run measured, by name."""
        return {name: metric for run in self.runs for name, metric in run.metrics.items()}

    def overlap_columns(self) -> list[Column]:
        """DSC, with raters their own beside it, and HD95, of each part of the problem, as far as any run has them."""
        kinds = ("dice", "dice_raters", "dice_between_raters", "hd95")
        return [column for kind in kinds for column in self.columns_of_kind(kind)]

    def volume_columns(self) -> list[Column]:
        """Errors of the foreground's volume, as far as any run measured them."""
        kinds = ("expected_volume_error", "argmax_volume_error", "volume_crps")
        return [column for kind in kinds for column in self.columns_of_kind(kind)]

    def cost_columns(self) -> list[Column]:
        """Seconds of training, if any run knows them."""
        known = any(np.isfinite(run.train_seconds) for run in self.runs)
        return [Column(TRAINING)] if known else []

    def columns_of_kind(self, kind: str) -> list[Column]:
        """Columns of the metrics of this kind, in the order of their files."""
        return [Column(m) for m in self.metrics.values() if m.kind == kind and m.reduction is None]

    def calibration_columns(self, protocol: Protocol, region: Region, reduction: str) -> list[Column]:
        """The metrics of a protocol in one of its regions, in the protocol's order, as far as any run has them."""
        asked = [m for m in protocol.case_metrics(self.class_names) if m.region == region.name]
        known = {name for run in self.runs for name in run.summary}
        return [Column(m, reduction, protocol.name) for m in asked if m.reduced(reduction).name in known]

    def case_values(self, runs: Iterable[Run], column: Column) -> NDArray[np.float64]:
        """``(cases,)``: mean over the runs, in this comparison's order of cases; NaN where a run has no figure."""
        return np.mean([self._aligned(run, run.values.get(column.metric.name)) for run in runs], axis=0)

    def class_values(self, runs: Iterable[Run], column: Column) -> NDArray[np.float64] | None:
        """``(cases, classes)``: mean over the runs, or None if the metric has no value per class."""
        tables = [run.class_values.get(column.metric.name) for run in runs]
        if any(table is None for table in tables):
            return None
        return np.mean([self._aligned(run, table) for run, table in zip(runs, tables, strict=True)], axis=0)

    def estimate(self, runs: Sequence[Run], column: Column) -> Estimate:
        """The runs' figure. Spread is the standard deviation over seeds, NaN for one run."""
        per_run = [self.mean_of(run, column) for run in runs]
        if column.has_cases:
            values = self.case_values(runs, column)
            interval = bootstrap_mean(values, self.subjects)
            return Estimate(interval, _spread(per_run), int((~np.isfinite(values)).sum()))
        # Without an interval: the mean over cases is another figure than the pooled one, and so is its interval.
        known = [value for value in per_run if np.isfinite(value)]
        mean = float(np.mean(known)) if known else float("nan")
        return Estimate(Interval(mean, float("nan"), float("nan")), _spread(known), 0)

    def mean_of(self, run: Run, column: Column) -> float:
        """A run's own figure: over cases, or pooled, or its cost."""
        if column.metric == TRAINING:
            return run.train_seconds
        if column.reduction == "micro":
            return run.summary.get(column.metric.reduced("micro").name, float("nan"))
        values = self.case_values([run], column)
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
    """Sorts runs into comparisons: one for each set of class names, protocols, cases and site, in the order they come.

    Runs of one comparison whose settings are equal but for the seed become one :class:`Method`, named by its loss and
    by whatever else tells it from the others. What was fitted on a training afterwards follows it.

    Raises: :class:`~.runs.RunError` if a method has two evaluations of one seed.
    """
    alike: dict[Any, list[Run]] = {}
    for run in runs:
        place = run.settings.get("site")
        alike.setdefault((run.class_names, run.protocols, frozenset(run.cases), place), []).append(run)
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
