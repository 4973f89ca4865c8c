"""Corrections after training as the page tells them: what was fitted, why it was chosen, what it makes worse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monai_calib.words import counted

from .comparison import Comparison
from .runs import Run, number

__all__ = ["Candidate", "Correction", "corrections_of"]

MOST_INTERVALS = 8
_NAMES = ("nll", "ece", "volume_error", "labels_changed")


@dataclass(frozen=True)
class Candidate:
    """A candidate on held-out cases: means of the whole volume's NLL and ECE, error of the expected volume, share of
    foreground labels changed; and why it is out, if it is."""

    name: str
    values: tuple[float, ...]
    note: str
    chosen: bool


@dataclass(frozen=True)
class Correction:
    """The correction of one run, or of one of its sigmoid channels; texts as the calibration wrote them."""

    method: str
    seed: str
    fitted: str
    data: str
    status: str
    message: str
    why: str
    worse: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    flattering: bool


def corrections_of(comparison: Comparison) -> list[Correction]:
    """The corrections of a comparison's runs, as far as they say how they came about."""
    return [
        _correction(method.label + (f", {record['channel']}" if "channel" in record else ""), run, record)
        for method in (*comparison.methods, *comparison.failed)
        for run in (*method.runs, *method.failed)
        for record in run.corrections
    ]


def _correction(label: str, run: Run, record: Mapping[str, Any]) -> Correction:
    choice = record.get("choice") or {}
    on = str(record.get("fitted_on", "unknown"))
    return Correction(
        method=label,
        seed=run.seed,
        fitted=_fitted(record),
        data=f"{counted(record.get('cases', 0), 'case')} of {on}, {record.get('voxels', 0):,} voxels, region "
        f"{record.get('region')}",
        status=str(record.get("status", "")),
        message=str(record.get("message", "")),
        why=f"chosen: {choice['why']}" if choice else "asked for by name",
        worse=tuple(str(sentence) for sentence in record.get("guards", ())),
        candidates=_candidates(choice) if choice else _asked(record),
        flattering=on == run.split,
    )


def _fitted(record: Mapping[str, Any]) -> str:
    """The fitted numbers with their intervals over subjects, as far as there are few."""
    intervals = record.get("intervals", ())
    if not 0 < len(intervals) <= MOST_INTERVALS:
        return str(record.get("in_words", ""))
    told = (f"{i['name']} {i['value']:.4g} ({i['low']:.3g} to {i['high']:.3g})" for i in intervals)
    return f"{', '.join(told)}; in brackets the 95 % interval over subjects"


def _candidates(choice: Mapping[str, Any]) -> tuple[Candidate, ...]:
    held, guards, dropped = choice.get("candidates", {}), choice.get("guards", {}), choice.get("dropped", {})
    found = [
        Candidate(name, _values(values), "; ".join(guards.get(name, ())), name == choice.get("chosen"))
        for name, values in held.items()
    ]
    out = [Candidate(name, _values({}), why, False) for name, why in dropped.items() if name not in held]
    return (*found, *out)


def _asked(record: Mapping[str, Any]) -> tuple[Candidate, ...]:
    held = record.get("held_out", {})
    return tuple(Candidate(name, _values(values), "", name == record.get("method")) for name, values in held.items())


def _values(values: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(number(values.get(name)) for name in _NAMES)
