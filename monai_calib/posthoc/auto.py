"""Choose a correction that does not make the network worse, by what held-out subjects say of each candidate."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from monai_calib.labels import top_class
from monai_calib.metrics.errors import ece
from monai_calib.metrics.evaluation import volume_errors
from monai_calib.metrics.scores import nll
from monai_calib.posthoc.base import Calibrator, fit
from monai_calib.posthoc.methods import build_calibrator
from monai_calib.posthoc.none import NoCorrection
from monai_calib.posthoc.stream import LogitCase
from monai_calib.words import counted

__all__ = [
    "Candidate",
    "Choice",
    "Held",
    "RefusedCorrectionError",
    "choose",
    "default_candidates",
    "degenerate",
    "examine",
    "groups_of",
    "judge",
]

NONE = "none"
FEW_SUBJECTS, HARDLY_ANY = 8, 3
MOST_FOLDS = 5
MOST_LABELS_CHANGED = 0.01
MOST_VOLUME = 0.1
LEAST_WIDTH = 2.0
_log = logging.getLogger(__name__)


class RefusedCorrectionError(ValueError):
    """A correction that makes the network worse on held-out cases; says in which figures."""


@dataclass(frozen=True)
class Candidate:
    """A method with its arguments, and how many numbers it fits."""

    name: str
    method: str
    region: str | None
    arguments: Mapping[str, Any]
    parameters: int

    def build(self, num_classes: int, slice_axis: int | None = None) -> Calibrator:
        """An unfitted calibrator, for a network that sees volumes whole or slice by slice."""
        if self.method == NONE:
            return NoCorrection(num_classes)
        calibrator = build_calibrator(self.method, num_classes, self.region, self.arguments)
        calibrator.slice_axis = slice_axis
        return calibrator


def default_candidates(num_classes: int) -> list[Candidate]:
    """The candidates of ``auto``, the simplest first, all fitted on the whole volume.

    ``boundary_vector`` is not among them: on the hippocampus it takes seven times as long as all others together, and
    moves 5 % of the foreground's labels, for which it would be dropped.
    """
    knots = len(build_calibrator("boundary_temperature", num_classes).settings()["knots"])
    return [
        Candidate(NONE, NONE, None, {}, 0),
        Candidate("temperature", "temperature", "all", {}, 1),
        Candidate("boundary_temperature_2", "boundary_temperature", "all", {"knots": (-2.0, 2.0)}, 2),
        Candidate("boundary_temperature", "boundary_temperature", "all", {}, knots),
        Candidate("vector", "vector", "all", {}, 2 * num_classes),
        Candidate("isotonic", "isotonic", "all", {}, 1000),
    ]


@dataclass
class Held:
    """Figures of the whole volume of each case, by a correction fitted without its subject."""

    nll: list[float] = field(default_factory=list)
    ece: list[float] = field(default_factory=list)
    volume_error: list[float] = field(default_factory=list)
    labels_changed: list[float] = field(default_factory=list)

    def add(self, case: LogitCase, logits: torch.Tensor) -> None:
        """Measure a case with these logits in place of its own."""
        whole = case.histogram("all", logits)
        before, after = case.predicted, top_class(logits)
        foreground = ((before != 0) | (after != 0)) & case.mask("all")
        changed = (before != after) & foreground
        counts = torch.ones_like(foreground, dtype=torch.int64) if case.weight is None else case.weight
        self.nll.append(nll(whole))
        self.ece.append(ece(whole, num_bins=15))
        self.volume_error.append(volume_errors(whole)["expected_volume_error"])
        self.labels_changed.append(float(counts[changed].sum()) / max(1, int(counts[foreground].sum())))

    def mean(self, name: str) -> float:
        """Mean over cases, NaN left out."""
        known = [value for value in getattr(self, name) if not math.isnan(value)]
        return math.fsum(known) / len(known) if known else math.nan

    def to_json(self) -> dict[str, float | None]:
        """Means over cases; None where there is none."""
        means = {name: self.mean(name) for name in asdict(self)}
        return {name: value if math.isfinite(value) else None for name, value in means.items()}


@dataclass
class Choice:
    """The chosen correction, what it was chosen from, and why; plain values in :meth:`to_json`."""

    chosen: str
    why: str
    subjects: int
    cases: int
    folds: int
    held: dict[str, Held]
    guards: dict[str, list[str]]
    dropped: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: value for name, value in asdict(self).items() if name != "held"},
            "candidates": {name: held.to_json() for name, held in self.held.items()},
        }


def choose(
    cases: Iterable[LogitCase],
    num_classes: int,
    candidates: Sequence[Candidate] | None = None,
    slice_axis: int | None = None,
    refused: Mapping[str, Sequence[str]] | None = None,
) -> Choice:
    """Compare corrections by cross-validation, folds by subject, and choose one.

    The best candidate has the lowest mean negative log-likelihood of whole volumes that it was not fitted on. Chosen is
    the simplest whose difference to the best, paired by subject, is within one standard error. A candidate is dropped
    if it makes the whole volume worse than the network as trained: see :func:`judge`. With fewer than 8 subjects only
    candidates of one or two numbers take part, with one or two only a temperature, compared over cases; a single case
    decides nothing, and nothing is corrected.

    Args:
        cases: the same ones at each iteration, such as :class:`~.kept.KeptCases`.
        num_classes: channels of the logits.
        candidates: the simplest first; the first is none.
        slice_axis: see :class:`~.base.Calibrator`.
        refused: what else is held against candidates, by name; they are compared, and not chosen.

    Raises: ``ValueError`` for no case.
    """
    everything = list(candidates or default_candidates(num_classes))
    names = [(case.name, case.subject) for case in cases]
    if not names:
        raise ValueError("no case to choose a correction on: the validation set is empty")
    subjects = list(dict.fromkeys(subject for _, subject in names))
    few, of = len(subjects) < HARDLY_ANY, counted(len(subjects), "subject")
    most = 1 if few else 2 if len(subjects) < FEW_SUBJECTS else math.inf
    taking_part = [candidate for candidate in everything if candidate.parameters <= most]
    dropped = {c.name: f"{counted(c.parameters, 'number')}, {of}" for c in everything if c not in taking_part}
    groups = groups_of(names)
    units = list(dict.fromkeys(groups))
    if len(units) < 2:
        return Choice(NONE, "a single case decides nothing", len(subjects), 1, 0, {}, {}, dropped)
    held, failed, folds = _cross_validate(cases, groups, units, taking_part, num_classes, slice_axis)
    dropped |= failed
    guards = {
        name: [*judge(held[NONE], found, groups), *(refused or {}).get(name, [])]
        for name, found in held.items()
        if name != NONE
    }
    left = [c for c in taking_part if c.name in held and not guards.get(c.name)]
    per_subject = {c.name: _per_unit(held[c.name].nll, groups, units) for c in left}
    best = min(left, key=lambda c: float(np.mean(per_subject[c.name])))
    chosen, why = best, "the best of those that make nothing worse" if any(guards.values()) else "the best"
    for candidate in left:
        difference = per_subject[candidate.name] - per_subject[best.name]
        error = standard_error(held[best.name].nll, held[candidate.name].nll, groups)
        if float(np.mean(difference)) <= error:
            chosen = candidate
            if candidate is not best:
                why = (
                    f"the simplest within one standard error of {best.name}: negative log-likelihood "
                    f"{float(np.mean(difference)):.2g} above it, standard error {error:.2g}"
                )
            break
    if few:
        why += f"; compared over the cases of {of}, which proves nothing about new ones"
    return Choice(chosen.name, why, len(subjects), len(names), folds, held, guards, dropped)


def examine(
    cases: Iterable[LogitCase], candidate: Candidate, num_classes: int, slice_axis: int | None = None
) -> tuple[list[str], dict[str, Held]]:
    """Tell what a correction makes worse on held-out cases, and its figures beside those of no correction.

    Folds are of subjects, or of cases where there are fewer than three subjects; a single case says nothing.
    """
    groups = groups_of([(case.name, case.subject) for case in cases])
    units = list(dict.fromkeys(groups))
    worse = [found] if (found := degenerate(candidate.build(num_classes, slice_axis), cases)) else []
    if len(units) < 2:
        return worse, {}
    both = [Candidate(NONE, NONE, None, {}, 0), candidate]
    held, failed, _ = _cross_validate(cases, groups, units, both, num_classes, slice_axis)
    if failed:
        return [*worse, f"it cannot be judged on cases it was not fitted on: {failed[candidate.name]}"], held
    return worse + judge(held[NONE], held[candidate.name], groups), held


def groups_of(names: Sequence[tuple[str, str]]) -> list[str]:
    """The unit of chance of each case, given its name and subject: the subject, or the case where there are hardly any.

    Example:
        >>> groups_of([("a", "1"), ("b", "1"), ("c", "2"), ("d", "3")]), groups_of([("a", "1"), ("b", "1")])
        (['1', '1', '2', '3'], ['a', 'b'])
    """
    subjects = [subject for _, subject in names]
    return [name for name, _ in names] if len(set(subjects)) < HARDLY_ANY else subjects


def judge(
    before: Held, after: Held, groups: Sequence[str], most_labels_changed: float = MOST_LABELS_CHANGED
) -> list[str]:
    """Sentences on what a correction makes worse on cases it was not fitted on; none is good.

    The whole volume's negative log-likelihood and ECE may not rise at all, the error of the expected volume not by more
    than both a tenth and the standard error of its rise, paired by ``groups``; and at most a share of the predicted
    foreground, 1 % by default, may change its label.

    Example:
        >>> before = Held([0.1] * 2, [0.02] * 2, [0.1] * 2, [0.0] * 2)
        >>> after = Held([0.2] * 2, [0.01] * 2, [0.1] * 2, [0.0] * 2)
        >>> judge(before, after, ["a", "b"])
        ['negative log-likelihood of the whole volume rises from 0.1 to 0.2']
    """
    words = {"nll": "negative log-likelihood of the whole volume", "ece": "ECE of the whole volume"}
    found = []
    for name, what in words.items():
        first, second = before.mean(name), after.mean(name)
        if second > first * (1 + 1e-6):
            found.append(f"{what} rises from {first:.3g} to {second:.3g}")
    first, second = before.mean("volume_error"), after.mean("volume_error")
    error = standard_error(before.volume_error, after.volume_error, groups)
    if second > first * (1 + MOST_VOLUME) and second - first > error:
        found.append(f"error of the expected volume rises from {first:.3g} to {second:.3g}")
    changed = after.mean("labels_changed")
    if changed > most_labels_changed:
        found.append(f"{100 * changed:.2g} % of the foreground's labels change")
    return found


def degenerate(calibrator: Calibrator, cases: Iterable[LogitCase]) -> str | None:
    """Say why a correction's region is no band of voxels on these cases; None if it is one.

    Narrower than two voxels on some case, or, dilated, on every case the union it was to widen.
    """
    region = calibrator.region
    if not (region.size_mm or region.size_vx):
        return None
    widened = region.kind != "dilated"
    for case in cases:
        width = region.size_vx
        if region.size_mm and case.spacing is not None:
            width = max(width, region.size_mm / min(case.spacing))
        if (region.size_vx or case.spacing is not None) and width < LEAST_WIDTH * (1 - 1e-6):
            return (
                f"region {region} is {width:.2g} voxels wide on case {case.name}: below 2 it holds what the truth "
                f"chooses and no background; take region 'all' or '{region.kind}:max(2mm,2vx)'"
            )
        widened = widened or case.count(region) > case.count("union")
    return None if widened else f"region {region} is the union itself on every case; take region 'all'"


def _cross_validate(
    cases: Iterable[LogitCase],
    groups: Sequence[str],
    units: Sequence[str],
    candidates: Sequence[Candidate],
    num_classes: int,
    slice_axis: int | None,
) -> tuple[dict[str, Held], dict[str, str], int]:
    folds = min(MOST_FOLDS, len(units))
    fold_of = {unit: i % folds for i, unit in enumerate(units)}
    of_case = [fold_of[group] for group in groups]
    held = {candidate.name: Held() for candidate in candidates}
    order: dict[str, list[int]] = {candidate.name: [] for candidate in candidates}
    failed: dict[str, str] = {}
    for number in range(folds):
        left = [candidate for candidate in candidates if candidate.name not in failed]
        fitted, more = _fitted(left, _Part(cases, [fold != number for fold in of_case]), num_classes, slice_axis)
        failed |= more
        for name in more:
            held.pop(name)
        for place, case in _numbered(cases, [fold == number for fold in of_case]):
            for name, calibrator in fitted.items():
                held[name].add(case, calibrator.apply_case(case))
                order[name].append(place)
    for name, found in held.items():  # back into the order of the cases
        back = np.argsort(order[name])
        for figure in asdict(found):
            values = getattr(found, figure)
            setattr(found, figure, [values[i] for i in back])
    return held, failed, folds


def _fitted(
    candidates: Sequence[Candidate], cases: Iterable[LogitCase], num_classes: int, slice_axis: int | None
) -> tuple[dict[str, Calibrator], dict[str, str]]:
    """Fit the candidates in common passes; if one cannot be fitted, each by itself, and say why which cannot."""

    def fit_these(chosen: Sequence[Candidate]) -> dict[str, Calibrator]:
        built = {candidate.name: candidate.build(num_classes, slice_axis) for candidate in chosen}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a fold that determines nothing says so in its figures
            to_fit = [built[candidate.name] for candidate in chosen if candidate.method != NONE]
            if to_fit:
                fit(to_fit, cases)
        return built

    try:
        return fit_these(candidates), {}
    except ValueError:
        fitted: dict[str, Calibrator] = {}
        failed: dict[str, str] = {}
        for candidate in candidates:
            try:
                fitted |= fit_these([candidate])
            except ValueError as error:
                failed[candidate.name] = str(error)
        return fitted, failed


class _Part:
    """Some of the cases, at each iteration the same."""

    def __init__(self, cases: Iterable[LogitCase], chosen: Sequence[bool]) -> None:
        self.cases = cases
        self.chosen = chosen

    def __iter__(self) -> Any:
        return (case for _, case in _numbered(self.cases, self.chosen))


def _numbered(cases: Iterable[LogitCase], chosen: Sequence[bool]) -> Iterable[tuple[int, LogitCase]]:
    return ((i, case) for i, (case, take) in enumerate(zip(cases, chosen, strict=True)) if take)


def _per_unit(values: Sequence[float], groups: Sequence[str], units: Sequence[str]) -> np.ndarray[Any, Any]:
    by_unit: dict[str, list[float]] = {unit: [] for unit in units}
    for value, group in zip(values, groups, strict=True):
        by_unit[group].append(value)
    return np.array([np.mean(by_unit[unit]) for unit in units])


def standard_error(before: Sequence[float], after: Sequence[float], groups: Sequence[str]) -> float:
    """Standard error of the mean difference, paired by group; NaN left out, infinite with fewer than two groups."""
    kept = [(b - a, g) for a, b, g in zip(before, after, groups, strict=True) if not math.isnan(b - a)]
    units = list(dict.fromkeys(group for _, group in kept))
    if len(units) < 2:
        return math.inf
    differences = _per_unit([value for value, _ in kept], [group for _, group in kept], units)
    return float(np.std(differences, ddof=1)) / math.sqrt(len(units))
