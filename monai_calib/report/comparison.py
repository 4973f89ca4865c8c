"""Which runs may stand in one table: seeds of a method grouped, methods measured alike on the same cases compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .runs import Protocol, Run
from .statistics import Interval, bootstrap_mean

__all__ = ["Comparison", "Estimate", "Measure", "Method", "compare"]

# What differs between two runs of one method; everything else the bundle reports is part of the method.
_PER_RUN = frozenset({"seed", "training_seconds", "train_seconds", "started", "finished", "date", "run_dir"})

_NAMES = {
    "dsc": "DSC",
    "hd95_mm": "HD95",
    "ece": "ECE",
    "classwise_ece": "cECE",
    "classwise_ece_paper": "cECE",
    "classwise_ece_above1e-3": "cECE above 0.001",
    "adaptive_ece": "adaptive ECE",
    "ace": "ACE",
    "mce": "MCE",
    "rmsce": "RMSCE",
    "tace": "TACE",
    "nll": "NLL",
    "brier": "Brier",
    "ks_error": "KS error",
    "debiased_ece": "debiased ECE",
}
_HIGHER_IS_BETTER = frozenset({"dsc", "sharpness", "resolution"})
# Zero is best but the sign says which way it errs, or the figure describes and does not judge: nothing to rank.
_DESCRIPTIVE = frozenset({"sharpness", "resolution", "uncertainty", "mean_confidence", "accuracy"})


@dataclass(frozen=True)
class Measure:
    """One column: where its figures are found, how it is called, and which way is better."""

    kind: str
    case_key: str
    summary_key: str | None = None
    protocol: Protocol | None = None
    region: str | None = None
    reduction: str = "macro"

    @property
    def label(self) -> str:
        return _NAMES.get(self.kind, self.kind.replace("_", " "))

    @property
    def unit(self) -> str:
        return "mm" if self.kind.endswith("_mm") else ""

    @property
    def lower_is_better(self) -> bool:
        return self.kind not in _HIGHER_IS_BETTER

    @property
    def ranks(self) -> bool:
        """Whether a smaller or larger figure is better at all."""
        return self.kind not in _DESCRIPTIVE

    @property
    def title(self) -> str:
        """The full name, with region and protocol: what a figure or test is headed with."""
        if self.protocol is None or self.region is None:
            return f"{self.label} ({self.unit})" if self.unit else self.label
        return f"{self.label}, {self.region}, protocol {self.protocol.name}, {self.reduction}"

    @property
    def key(self) -> str:
        """A name that no other measure has and that is safe in a file name or an HTML id."""
        return self.case_key if self.protocol is None else f"{self.protocol.name}-{self.summary_key or self.case_key}"


@dataclass(frozen=True)
class Estimate:
    """A method's figure: mean with its interval over subjects, spread over seeds, and how many cases have none."""

    interval: Interval
    spread: float
    undefined: int


@dataclass(frozen=True)
class Method:
    """Runs that differ in nothing but the seed; those that did not converge stand apart, out of every mean."""

    label: str
    runs: tuple[Run, ...]
    failed: tuple[Run, ...]


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
        measured = {key for run in self.runs for key in run.values}
        return [Measure(kind, kind) for kind in ("dsc", "hd95_mm") if kind in measured]

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
        values = self.case_values(runs, measure)
        finite = np.isfinite(values)
        interval = bootstrap_mean(values, self.subjects)
        per_run = [self._single(run, measure) for run in runs]
        spread = float(np.std(per_run, ddof=1)) if len(per_run) > 1 else float("nan")
        if measure.reduction == "micro":
            # Pooled over the data set: the mean over cases is another figure, and so is its interval.
            interval = Interval(float(np.mean(per_run)), float("nan"), float("nan"))
        return Estimate(interval, spread, int((~finite).sum()))

    def _single(self, run: Run, measure: Measure) -> float:
        if measure.reduction == "micro":
            return run.summary.get(measure.summary_key or "", float("nan"))
        return bootstrap_mean(self.case_values([run], measure), self.subjects, num_samples=1).value

    def _aligned(self, run: Run, values: NDArray[np.float64] | None) -> NDArray[np.float64]:
        if values is None:
            return np.full(len(self.cases), np.nan)
        position = {case: index for index, case in enumerate(run.cases)}
        return values[[position[case] for case in self.cases]]


def compare(runs: Sequence[Run]) -> list[Comparison]:
    """Sorts runs into comparisons: one for each set of class names, protocols and cases, in the order they come.

    Runs of one comparison whose settings are equal but for the seed become one :class:`Method`, named by its loss and
    by whatever else tells it from the others.
    """
    alike: dict[Any, list[Run]] = {}
    for run in runs:
        alike.setdefault((run.class_names, run.protocols, frozenset(run.cases)), []).append(run)
    return [_comparison(group) for group in alike.values()]


def _comparison(runs: list[Run]) -> Comparison:
    first = runs[0]
    groups: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(_identity(run.settings), []).append(run)
    labels = _labels([dict(identity) for identity in groups])
    methods = []
    for label, members in zip(labels, groups.values(), strict=True):
        members.sort(key=lambda run: (len(run.seed), run.seed))
        failed = tuple(run for run in members if run.missed_classes())
        methods.append(Method(label, tuple(run for run in members if run not in failed), failed))
    return Comparison(
        methods=tuple(method for method in methods if method.runs),
        failed=tuple(method for method in methods if not method.runs),
        class_names=first.class_names,
        protocols=first.protocols,
        cases=first.cases,
        subjects=first.subjects,
    )


def _identity(settings: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The settings that make a method, those inside a mapping such as ``loss_args`` under their own names."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if key not in _PER_RUN:
            flat |= {str(k): str(v) for k, v in (value if isinstance(value, Mapping) else {key: value}).items()}
    return tuple(sorted(flat.items()))


def _labels(identities: list[dict[str, str]]) -> list[str]:
    """The loss, followed by the settings that the methods do not share."""
    keys = dict.fromkeys(key for identity in identities for key in identity)
    varying = [key for key in keys if len({identity.get(key) for identity in identities}) > 1]
    labels = []
    for number, identity in enumerate(identities, start=1):
        parts = [identity.get("loss_name", f"run {number}")]
        for key in varying:
            if key != "loss_name" and key in identity:
                parts.append(
                    identity[key] if key.endswith("_name") or key in ("bundle", "split") else _pair(key, identity)
                )
        labels.append(" · ".join(parts))
    return labels


def _pair(key: str, identity: Mapping[str, str]) -> str:
    return f"{key.replace('_', ' ')} {identity[key]}"
