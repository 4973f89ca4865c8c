"""Choose and fit corrections of one problem, or of each of several sigmoid channels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from monai_calib.posthoc.auto import Candidate, RefusedCorrectionError, choose, default_candidates, examine
from monai_calib.posthoc.base import Calibrator, fit
from monai_calib.posthoc.files import correction_record
from monai_calib.posthoc.methods import build_calibrator
from monai_calib.posthoc.none import NoCorrection
from monai_calib.posthoc.sigmoid import PerChannel
from monai_calib.posthoc.stream import LogitCase
from monai_calib.posthoc.uncertainty import parameter_intervals
from monai_calib.words import counted

__all__ = ["AUTO", "Asked", "Fitted", "find_correction", "fit_channels", "fit_methods"]

AUTO = "auto"
_log = logging.getLogger(__name__)


class Fitted(NamedTuple):
    """Fitted corrections by method, the chosen one first, their records, and how that one came about."""

    methods: dict[str, Calibrator]
    records: dict[str, dict[str, Any]]
    about: dict[str, Any]


class Asked(NamedTuple):
    """Arguments of :func:`~.calibration.calibrate` that a fit needs; ``num_classes`` are of one problem."""

    method: str
    num_classes: int
    region: str | None = None
    arguments: Mapping[str, Any] | None = None
    also: Sequence[str] = ()
    slice_axis: int | None = None
    force: bool = False
    fitted_on: str = "validation"
    unit: str = "mm"


def fit_methods(
    cases: Iterable[LogitCase], asked: Asked, worse_as_run: Callable[[Calibrator], list[str]] | None = None
) -> Fitted:
    """Find a correction, fit it and others on all cases, and say how it went; see :func:`find_correction`.

    Args:
        cases: the same ones at each iteration.
        asked: what for.
        worse_as_run: sentences on what a fitted correction makes worse in the network as it will run. A choice that
            makes anything worse is made again without it; a method by name is refused.
    """
    refused: dict[str, list[str]] = {}
    while True:
        chosen, about = find_correction(
            cases,
            asked.method,
            asked.num_classes,
            asked.region,
            asked.arguments,
            asked.slice_axis,
            asked.force,
            refused=refused,
        )
        methods = {chosen.method: chosen}
        for name in asked.also:
            methods.setdefault(name, build_calibrator(name, asked.num_classes, asked.region))
        for calibrator in methods.values():
            calibrator.slice_axis, calibrator.unit = asked.slice_axis, asked.unit
        to_fit = [calibrator for calibrator in methods.values() if not isinstance(calibrator, NoCorrection)]
        if to_fit:
            fit(to_fit, cases)
        worse = worse_as_run(chosen) if worse_as_run is not None else []
        if worse and asked.method == AUTO:
            refused[about["choice"]["chosen"]] = worse
            continue
        _refuse(asked.method, worse, asked.force, "as it will run")
        about["guards"] += worse
        break
    if isinstance(chosen, NoCorrection):
        chosen.record.cases = about["choice"]["cases"]
    records = {}
    for name, calibrator in methods.items():
        intervals = [interval._asdict() for interval in parameter_intervals(calibrator, cases)]
        told = {**(about if calibrator is chosen else {}), **calibrator.to_json(), "intervals": intervals}
        records[name] = correction_record(told, calibrator.in_words(), asked.fitted_on)
    return Fitted(methods, records, about)


def fit_channels(cases: Mapping[str, Iterable[LogitCase]], asked: Asked) -> Fitted:
    """:func:`fit_methods` for the cases of each sigmoid channel, by its name, put together.

    The record of each correction has those of its channels under ``channels``.

    Raises: as :func:`fit_methods`, naming the channel.
    """
    fitted: dict[str, Fitted] = {}
    for channel, theirs in cases.items():
        try:
            fitted[channel] = fit_methods(theirs, asked)
        except ValueError as error:
            raise type(error)(f"{channel}: {error}") from error
    chosen = PerChannel({channel: next(iter(found.methods.values())) for channel, found in fitted.items()})
    methods = {chosen.method: chosen}
    for name in asked.also:
        methods.setdefault(name, PerChannel({channel: found.methods[name] for channel, found in fitted.items()}))
    guards = [f"{channel}: {sentence}" for channel, found in fitted.items() for sentence in found.about["guards"]]
    about = {"asked": asked.method, "guards": guards}
    records = {}
    for name, whole in methods.items():
        told = {**(about if whole is chosen else {}), **whole.to_json()}
        records[name] = correction_record(told, whole.in_words(), asked.fitted_on) | {
            "channels": [{"channel": c, **fitted[c].records[part.method]} for c, part in whole.channels.items()]
        }
    return Fitted({**methods}, records, about)


def find_correction(
    cases: Iterable[LogitCase],
    method: str,
    num_classes: int,
    region: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    slice_axis: int | None = None,
    force: bool = False,
    candidates: Sequence[Candidate] | None = None,
    refused: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Calibrator, dict[str, Any]]:
    """The unfitted correction, and plain values that say how it came about: chosen, or asked for by name and examined.

    Args:
        cases: the same ones at each iteration.
        method: ``"auto"`` or a name out of :data:`~monai_calib.posthoc.METHODS`.
        num_classes: channels of the logits.
        region, arguments: of a method by name.
        slice_axis: see :class:`~.base.Calibrator`.
        force: take a method by name even if it makes things worse.
        candidates: of ``auto``; :func:`~.auto.default_candidates` if not given.
        refused: what else is held against candidates of ``auto``, by name.

    Raises: :class:`~.auto.RefusedCorrectionError` for a method by name that makes things worse.
    """
    if method == AUTO:
        everything = list(candidates or default_candidates(num_classes))
        choice = choose(cases, num_classes, everything, slice_axis, refused)
        told = f"{counted(choice.subjects, 'subject')}, {counted(choice.cases, 'case')}"
        _log.info("auto: %s; %s (%s)", choice.chosen, choice.why, told)
        found = next(c for c in everything if c.name == choice.chosen)
        return found.build(num_classes, slice_axis), {"asked": AUTO, "choice": choice.to_json(), "guards": []}
    candidate = Candidate(method, method, region, dict(arguments or {}), 0)
    worse, held = examine(cases, candidate, num_classes, slice_axis)
    _refuse(method, worse, force, "on cases it was not fitted on")
    figures = {name: found.to_json() for name, found in held.items()}
    return candidate.build(num_classes, slice_axis), {"asked": method, "held_out": figures, "guards": worse}


def _refuse(method: str, worse: Sequence[str], force: bool, where: str) -> None:
    """Refuse a method by name that makes things worse, or warn where it is taken all the same."""
    if worse and not force:
        raise RefusedCorrectionError(
            f"{method} makes the network worse {where}: {'; '.join(worse)}. Nothing was written. "
            "Take --method auto, or write it all the same with --force True."
        )
    for sentence in worse:
        _log.warning("%s: %s", method, sentence)
