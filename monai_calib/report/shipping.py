"""Which network to ship: the training that validation chose, the correction that held-out cases chose, and its file."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_calib.files import FileError, read_json
from monai_calib.variants import choose_variant

from .choice import VALIDATION, mean_of_cases, score_of, training_of
from .comparison import Comparison, Method
from .runs import Run, number

__all__ = ["Shipped", "shipped_of"]

_CALIBRATED = tuple(f"model_calibrated{end}" for end in (".ts", "_folded.ts", ".pt2", ".pt"))
_AS_TRAINED = ("model.ts", "model.pt2", "model.pt")
_SHIPPED = "monai_calib/shipped/1"


@dataclass(frozen=True)
class Shipped:
    """The method to ship, None if nothing could choose one; its run and file, and why, a sentence each.

    ``file`` is a path from the page's folder or from a named run folder, "" where the network is not there.
    """

    method: Method | None
    run: Run | None
    file: str
    why: tuple[str, ...]


def shipped_of(comparison: Comparison, runs: Sequence[Run], folders: Sequence[Path], page: Path) -> Shipped:
    """Choose what to ship by what no test case had a part in.

    Of several trainings, the one with the lowest NLL on validation, mean over cases and common seeds; of its
    corrections, the one that ``auto`` chose, or the one with the lowest NLL on held-out cases that is below that of
    the network as trained and makes nothing worse there. Of its seeds, the best on validation.

    Args:
        comparison: of the methods on the page.
        runs: all that were read, those on validation included.
        folders: the run folders that were named.
        page: the file of the page.
    """
    trainings: dict[int, list[Method]] = {}
    for method in comparison.methods:
        trainings.setdefault(method.place[0], []).append(method)
    if not trainings:
        return Shipped(None, None, "", ("No training converged.",))
    held = {place: _on_validation(members[0], runs) for place, members in trainings.items()}
    place, why = _training(trainings, held)
    if place is None:
        return Shipped(None, None, "", (why,))
    method, reason = _correction(trainings[place])
    run, seed = _seed(method, held[place])
    return Shipped(method, run, _file(run, folders, page), tuple(filter(None, (why, reason, seed))))


def _on_validation(method: Method, runs: Sequence[Run]) -> list[Run]:
    """Evaluations of a method's training on validation, as trained."""
    training = training_of(method.runs[0])
    return [r for r in runs if r.split in VALIDATION and "posthoc" not in r.settings and training_of(r) == training]


def _training(trainings: Mapping[int, Sequence[Method]], held: Mapping[int, Sequence[Run]]) -> tuple[int | None, str]:
    """The training's place and the sentence on it; None if validation cannot choose."""
    if len(trainings) == 1:
        return next(iter(trainings)), ""
    score = score_of([run for found in held.values() for run in found])
    if score is not None and all(held.values()):
        values: dict[int, dict[Hashable, float]] = {
            place: {run.seed: mean_of_cases(run, score) for run in found} for place, found in held.items()
        }
        chosen = choose_variant(values)
        if chosen.best >= 0:
            return list(values)[chosen.best], f"Lowest NLL on validation of {len(trainings)} trainings."
    return None, (
        f"No choice among {len(trainings)} trainings: not all were evaluated on the validation split, and a choice by "
        "the figures below would be one on the test cases. Evaluate each into RUN/validation/eval and write the page "
        "again."
    )


def _records(run: Run) -> list[Mapping[str, Any]]:
    """Records of a run's correction, one for each sigmoid channel."""
    record = run.settings.get("correction")
    return list(record.get("channels", [record])) if isinstance(record, Mapping) else []


def _correction(members: Sequence[Method]) -> tuple[Method, str]:
    plain = next((method for method in members if not method.place[1]), None)
    fitted = [method for method in members if method.place[1]]
    if not fitted:
        return members[0], "As trained: no correction has been evaluated here."
    for method in fitted:
        records = _records(method.runs[0])
        if records and all(record.get("choice") for record in records):
            chosen, on = records[0]["choice"], f"held-out {records[0].get('fitted_on', 'unknown')} cases"
            if chosen["chosen"] == "none":
                return method, f"The network as trained: {on} chose no correction."
            return method, f"Correction chosen on {on}: {chosen['chosen']}, {chosen['why']}."
    scores = {method.label: _held_out(method, None) for method in fitted}
    known = [method for method in fitted if math.isfinite(scores[method.label]) and not _guards(method)]
    best = min(known, key=lambda method: scores[method.label], default=None)
    before = math.nan if best is None else _held_out(best, "none")
    if best is not None and not scores[best.label] >= before:
        return best, "The correction with the lowest NLL on held-out cases."
    if plain is None:
        return fitted[0], "The correction that was evaluated; nothing here says that it helps held-out cases."
    if not any(math.isfinite(score) for score in scores.values()):
        return plain, "As trained: no correction has figures on held-out cases that could choose it."
    return plain, "As trained: no correction lowers NLL on held-out cases and makes nothing worse there."


def _held_out(method: Method, name: str | None) -> float:
    """Mean held-out NLL of a correction over runs and channels, or of another candidate of its fits."""
    found = [
        number(record.get("held_out", {}).get(name or record.get("method"), {}).get("nll"))
        for run in method.runs
        for record in _records(run)
    ]
    return math.fsum(found) / len(found) if found else math.nan


def _guards(method: Method) -> bool:
    return any(record.get("guards") for run in method.runs for record in _records(run))


def _seed(method: Method, held: Sequence[Run]) -> tuple[Run, str]:
    """The run to ship of a method's seeds: by NLL on validation, else by the metric that chose its checkpoint."""
    if len(method.runs) == 1:
        return method.runs[0], ""
    score = score_of(list(held))
    by_nll = {} if score is None else {run.seed: -mean_of_cases(run, score) for run in held}
    values = [by_nll.get(run.seed, math.nan) for run in method.runs]
    if not all(map(math.isfinite, values)):
        values = [_best_value(run) for run in method.runs]
    if not all(map(math.isfinite, values)):
        run = method.runs[0]
        return run, f"Seed {run.seed}, the first of {len(method.runs)}: validation does not tell them apart."
    run = method.runs[values.index(max(values))]
    return run, f"Seed {run.seed}, the best of {len(method.runs)} on validation."


def _best_value(run: Run) -> float:
    for folder in run.evaluation.parents[:3]:
        path = folder / "models" / "training.json"
        if path.is_file():
            value = number(read_json(path).get("best_value"))
            return value if run.settings.get("best_is_highest", True) else -value
    return math.nan


def _file(run: Run, folders: Sequence[Path], page: Path) -> str:
    own = run.evaluation.parent
    if "posthoc" not in run.settings:
        places = [own / "models" / name for name in _AS_TRAINED]
    else:
        places = [own / "models" / name for name in _CALIBRATED]
        shared = own.parents[1] / "models"  # of a calibration, which folds in one of the corrections it evaluates
        if own.parent.name == "posthoc" and _is_of(shared / "calibration_parameters.json", run):
            places += [shared / name for name in _CALIBRATED]
    found = next((path for path in places if path.is_file()), None)
    return "" if found is None else _shown(found, folders, page)


def _is_of(parameters: Path, run: Run) -> bool:
    """Whether a calibration's file is of the correction that a run evaluates."""
    try:
        content = read_json(parameters)
        return content["method"] in [record.get("method") for record in _records(run)]
    except (FileError, KeyError, TypeError):
        return False


def _shown(found: Path, folders: Sequence[Path], page: Path) -> str:
    """The path without what lies above the page's folder or the named ones; the copy beside the page if it is one."""
    here = page.resolve().parent
    if found.is_relative_to(here):
        inside = found.relative_to(here).as_posix()
        copy = here / "model.ts"
        try:
            about = read_json(here / "model.json")
            if copy.is_file() and about["format"] == _SHIPPED and about["from"] == inside:
                return copy.name
        except (FileError, KeyError, TypeError):
            pass
        return inside
    for folder in (Path(folder).resolve() for folder in folders):
        for root in (folder, *folder.parents[:2]):  # an evaluation named alone has its models beside or above it
            if found.is_relative_to(root):
                return (Path(root.name) / found.relative_to(root)).as_posix()
    return found.name
