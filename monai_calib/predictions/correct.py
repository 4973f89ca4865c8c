"""Fit a correction on some of the stored maps, and write and measure the others corrected."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from monai_calib.files import FileError, atomic_folder, folder_lock, write_json
from monai_calib.labels import top_class
from monai_calib.metrics.evaluated import Evaluated, read_evaluated
from monai_calib.posthoc.auto import default_candidates
from monai_calib.posthoc.base import Calibrator, fit
from monai_calib.posthoc.calibration import MOST_BYTES
from monai_calib.posthoc.files import correction_record
from monai_calib.posthoc.fitting import AUTO, find_correction
from monai_calib.posthoc.kept import KeptCases
from monai_calib.posthoc.methods import METHODS
from monai_calib.posthoc.none import NoCorrection
from monai_calib.posthoc.uncertainty import parameter_intervals
from monai_calib.predictions.cases import StoredCase, StoredCases
from monai_calib.predictions.evaluate import StoredEvaluation
from monai_calib.predictions.lists import case_list
from monai_calib.predictions.settings import Settings
from monai_calib.progress import Counted
from monai_calib.version import __version__
from monai_calib.words import counted

__all__ = ["CORRECTION_FORMAT", "CorrectedMaps", "correct_maps"]

CORRECTION_FORMAT = "monai_calib/correction/1"
_ADVICE = "Measure first: python -m monai_calib measure PROBABILITIES LABELS OUT"
_BY_IMAGE = "local_temperature"
_SPACING_DIFFERS = 0.01


class CorrectedMaps(NamedTuple):
    """Result of :func:`correct_maps`: what was fitted and written.

    Attributes:
        folder: that holds ``maps``, ``correction.json``, ``as_measured/eval`` and ``corrected/eval``.
        calibrator: the fitted correction.
        why: how it was chosen, in words.
        guards: what each candidate that was passed over makes worse on held-out cases.
        fitted_on, corrected: numbers of cases.
        before, after: summaries of the corrected cases.
        labels_changed: voxels whose label is another than before.
        shared: subjects that are in the fit and among the corrected.
    """

    folder: Path
    calibrator: Calibrator
    why: str
    guards: Mapping[str, Sequence[str]]
    fitted_on: int
    corrected: int
    before: dict[str, float]
    after: dict[str, float]
    labels_changed: int
    shared: list[str]


def correct_maps(
    evaluated: Path,
    output: Path,
    fit_on: str | Path,
    method: str = AUTO,
    region: str | None = None,
    force: bool = False,
    most_bytes: int = MOST_BYTES,
    progress: Callable[[Counted[StoredCase]], Iterable[StoredCase]] = iter,
) -> CorrectedMaps:
    """Fit on the cases of a list, correct all others, and measure these before and after.

    Maps are written in the format, type and order of axes that they came in, and measured as written. ``output`` is
    there whole or not at all.

    Args:
        evaluated: what ``measure`` wrote.
        output: new folder; one that this function wrote is replaced.
        fit_on: see :func:`~.lists.case_list`; or another folder that ``measure`` wrote, of the same network: then
            all cases of ``evaluated`` are corrected.
        method: ``"auto"``, chosen on held-out subjects of the fit, or a name out of
            :data:`~monai_calib.posthoc.METHODS`.
        region: voxels that count in the fit of a method by name; the whole volume by default.
        force: take a method by name even if it makes held-out cases worse.
        most_bytes: of disk for logits of the cases of the fit; larger cases are kept as samples of their voxels.
        progress: is given the cases to correct, and gives them one by one, such as
            :func:`~monai_calib.progress.with_progress`.

    Raises: :class:`~monai_calib.files.FileError` for what cannot be read or does not fit;
        :class:`~monai_calib.posthoc.RefusedCorrectionError` for a method by name that makes things worse.
    """
    found = _read(evaluated)
    _check_method(method, region)
    _check_output(output, evaluated)
    to_fit, rest = _sources(found, fit_on)
    for settings in (to_fit.settings, rest.settings):
        for folder in (settings.probabilities, settings.labels):
            if output.resolve() in (folder, *folder.parents):
                raise FileError(f"{output}: holds {folder}, which is read. Name a new folder.")
    shared = sorted({to_fit.subjects[name] for name in to_fit.names} & {rest.subjects[name] for name in rest.names})
    sizes = [case.spacing for case in found.cases if case.spacing]
    if Path(fit_on).is_dir():
        sizes += [case.spacing for case in _read(Path(fit_on)).cases if case.spacing]
    kept = KeptCases(to_fit, most_bytes, regions=[] if region is None else [region])
    with folder_lock(output, "correcting into it"), atomic_folder(output) as partial:
        calibrator, about = _fitted(kept, np.array(sizes), len(found.classes), method, region, force, to_fit.unit)
        told = correction_record({**about, **calibrator.to_json()}, calibrator.in_words(), "--fit_on")
        before, after, changed = _write(calibrator, rest, progress(rest), found, partial, output, told)
        record = {
            "format": CORRECTION_FORMAT,
            "version": __version__,
            **about,
            "fit_on": to_fit.names,
            "corrected": rest.names,
            "subjects_in_both": shared,
            "labels_changed": changed,
            "correction": calibrator.to_json(),
        }
        write_json(partial / "correction.json", record)
    choice = about.get("choice", {})
    why, guards = str(choice.get("why", "asked for by name")), choice.get("guards", {})
    return CorrectedMaps(output, calibrator, why, guards, len(to_fit), len(rest), before, after, changed, shared)


def _write(
    calibrator: Calibrator,
    cases: StoredCases,
    each: Iterable[StoredCase],
    found: Evaluated,
    folder: Path,
    output: Path,
    told_of_fit: Mapping[str, Any],
) -> tuple[dict[str, float], dict[str, float], int]:
    """Write corrected maps, and the cases measured before and after; summaries, and how many labels changed.

    Args:
        calibrator: the fitted correction.
        cases: to correct.
        each: the same, one by one.
        found: what was measured before.
        folder: where to write.
        output: what ``folder`` will be called.
        told_of_fit: record of the correction, for the report.
    """
    maps = folder / "maps"
    maps.mkdir()
    base = {name: value for name, value in found.run.items() if not name.startswith("posthoc")}
    fitted = {"posthoc": calibrator.method, "posthoc_region": str(calibrator.region), "correction": told_of_fit}
    places = {name: (output / name / "eval").resolve() for name in ("as_measured", "corrected")}
    told = {name: {**cases.settings.to_json(place), "version": __version__} for name, place in places.items()}
    runs = {
        "as_measured": {**base, "maps": told["as_measured"]},
        "corrected": {**base, **fitted, "maps": {**told["corrected"], "probabilities": "../../maps"}},
    }
    protocols = list(found.protocols.values())
    as_measured, corrected = (
        StoredEvaluation(folder / name / "eval", cases, found.classes, protocols, run) for name, run in runs.items()
    )
    changed = 0
    for case in each:
        values = _corrected(calibrator, case)
        cases.maps.write(case.name, maps, case.found, values)
        as_measured.add(case)
        labels = top_class(case.probabilities)
        case = cases.with_values(case, values)
        moved = top_class(case.probabilities)
        differ = int((moved != labels).sum())
        new = cases.settings.classes.in_labels(moved.numpy()) if differ else None
        cases.maps.write_labels(case.name, maps, new)
        corrected.add(case)
        changed += differ
        del case, values
    cases.maps.finish(maps)
    return as_measured.close(), corrected.close(), changed


def _sources(found: Evaluated, fit_on: str | Path) -> tuple[StoredCases, StoredCases]:
    """The cases to fit on, and those to correct."""
    names = [case.case for case in found.cases]
    if Path(fit_on).is_dir():
        other = _read(Path(fit_on))
        ours, theirs = _cases(found, names), _cases(other, [case.case for case in other.cases])
        if other.classes != found.classes or ours.settings.logits != theirs.settings.logits:
            raise FileError(
                f"{other.folder}: expected maps of the same kind and classes as {found.folder} "
                f"({', '.join(found.classes)}), got {', '.join(other.classes)}. Fit on maps of the same network."
            )
        return theirs, ours
    wanted = case_list(fit_on)
    unknown = [name for name in wanted if name not in set(names)]
    if unknown:
        raise FileError(
            f"{fit_on}: expected cases of {found.folder}, got {', '.join(unknown[:5])}, not among its {len(names)} "
            f"({', '.join(names[:3])} ...). Correct the list, or measure these cases too."
        )
    rest = [name for name in names if name not in set(wanted)]
    if not rest:
        raise FileError(
            f"{fit_on}: names all of {counted(len(names), 'case')}; expected some to be left to correct. Shorten the "
            "list."
        )
    return _cases(found, wanted), _cases(found, rest)


def _cases(found: Evaluated, names: Sequence[str]) -> StoredCases:
    settings = Settings.from_json(found.run["maps"], found.folder, found.folder / "calibration.json")
    return StoredCases(settings, {case.case: case.subject or case.case for case in found.cases}, names)


def _read(folder: Path) -> Evaluated:
    inside = folder / "eval"
    found = read_evaluated(inside if (inside / "calibration.json").is_file() else folder, FileError, _ADVICE)
    if not isinstance(found.run.get("maps"), dict):
        raise FileError(
            f"{found.folder}: expected the evaluation of stored maps, got that of a network. Correct a network with "
            f"its bundle's configs/calibrate.json. {_ADVICE}"
        )
    return found


def _check_method(method: str, region: str | None) -> None:
    if method == AUTO and region is not None:
        raise ValueError("--region: 'auto' takes the whole volume. Name a method with --method to give a region.")
    if method == _BY_IMAGE:
        raise ValueError(f"--method {method}: reads images, which stored maps lack. Take --method auto or another.")
    if method != AUTO and method not in METHODS:
        raise ValueError(f"--method: expected auto, {', '.join(m for m in METHODS if m != _BY_IMAGE)}, got {method!r}.")


def _check_output(output: Path, evaluated: Path) -> None:
    """Raise unless the folder is new, or was written by this command: it is replaced as a whole."""
    if output.resolve() in (evaluated.resolve(), *evaluated.resolve().parents):
        raise FileError(f"{output}: holds what is to be corrected. Name a new folder.")
    if output.exists() and not (output / "correction.json").is_file() and (output.is_file() or any(output.iterdir())):
        raise FileError(f"{output}: expected a new folder, got one that holds something else. Name another.")


def _fitted(
    kept: KeptCases,
    sizes: NDArray[np.float64],
    count: int,
    method: str,
    region: str | None,
    force: bool,
    unit: str,
) -> tuple[Calibrator, dict[str, Any]]:
    """The fitted correction, and how it was found; one by distances in mm only for voxels of one size."""
    alike = not len(sizes) or bool((np.ptp(sizes, 0) <= _SPACING_DIFFERS * sizes.min(0)).all())
    by_distance = {name for name, kind in METHODS.items() if kind.looks_around}
    if method in by_distance and not alike:
        raise FileError(
            f"--method {method}: goes by distances in mm and expects voxels of one size, got sizes from "
            f"{sizes.min(0).tolist()} to {sizes.max(0).tolist()} mm. Take --method auto, vector or temperature."
        )
    candidates = [c for c in default_candidates(count) if alike or c.method not in by_distance]
    where = region if method == AUTO else region or "all"
    calibrator, about = find_correction(kept, method, count, where, force=force, candidates=candidates)
    calibrator.unit = unit
    if not isinstance(calibrator, NoCorrection):
        fit([calibrator], kept)
        about["intervals"] = [interval._asdict() for interval in parameter_intervals(calibrator, kept)]
    return calibrator, about


def _corrected(calibrator: Calibrator, case: StoredCase) -> NDArray[Any]:
    """The corrected map ``(K, x, y, z)`` as its file will hold it: rounded to its type, logits where it held logits."""
    if isinstance(calibrator, NoCorrection):
        return case.found.values
    logits = calibrator.apply(case.logits[None])[0]
    if not bool(torch.isfinite(logits).all()):
        logits = logits.nan_to_num(neginf=math.log(np.finfo(np.float32).tiny))
    values = (logits if case.logits_stored else logits.softmax(0)).numpy()
    return values.astype(case.found.dtype) if case.found.dtype.kind == "f" else values
