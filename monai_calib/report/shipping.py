"""Which network to ship: the training that validation chose, the correction that held-out cases chose, and its file."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_calib.files import FileError, read_json
from monai_calib.metrics.metric import Metric
from monai_calib.variants import choose_variant

from .choice import VALIDATION, choose_on_validation, mean_of_cases, score_of, training_of
from .comparison import Comparison, Method, compare
from .runs import Run, number, read_runs

__all__ = ["Shipped", "shipped_of", "shipped_run"]

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

    Of a training's corrections, the one that ``auto`` chose, or the one with the lowest NLL on held-out cases that is
    below that of the network as trained and makes nothing worse there. Of several trainings, each with its correction,
    the one with the lowest NLL on held-out validation cases, mean over cases and common seeds; as trained, where a
    correction has no figures of such cases. Of its seeds, the best in the same way.

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
    picked = [(*_correction(members), _on_validation(members[0], runs)) for members in trainings.values()]
    chosen, why = _training([(method, held) for method, _, held in picked])
    if chosen is None:
        return Shipped(None, None, "", (why,))
    method, reason, held = picked[chosen]
    run, seed = _seed(method, held)
    return Shipped(method, run, _file(run, folders, page), tuple(filter(None, (why, reason, seed))))


def shipped_run(folders: Sequence[Path]) -> Run | None:
    """The evaluated run that a page on these run folders ships first; None if nothing could choose one."""
    runs = read_runs(folders)
    comparisons = compare(choose_on_validation(runs)[0])
    return shipped_of(comparisons[0], runs, folders, Path("report.html")).run


def _on_validation(method: Method, runs: Sequence[Run]) -> list[Run]:
    """Evaluations of a method's training on validation, as trained."""
    training = training_of(method.runs[0])
    return [r for r in runs if r.split in VALIDATION and "posthoc" not in r.settings and training_of(r) == training]


def _training(picked: Sequence[tuple[Method, Sequence[Run]]]) -> tuple[int | None, str]:
    """The training's number and the sentence on it; None if validation cannot choose."""
    if len(picked) == 1:
        return 0, ""
    score = score_of([run for _, held in picked for run in held])
    as_shipped = [_nll_as_shipped(method, held) for method, held in picked]
    if all(math.isfinite(value) for of_seed in as_shipped for value in of_seed.values()):
        values, how = as_shipped, "each as it would ship, this one has the lowest NLL on held-out validation cases."
    elif score is not None and all(held for _, held in picked):
        values = [_by_seed(held, score) for _, held in picked]
        how = "each as trained, this one has the lowest NLL on validation cases."
    else:
        values, how = [{}], ""
    chosen = choose_variant(dict(enumerate(values)))
    if chosen.best >= 0:
        return chosen.best, f"Of {len(picked)} trainings, {how}"
    return None, (
        f"No choice among {len(picked)} trainings: not all were evaluated on the validation split with a seed in "
        "common, and a choice by the figures below would be one on the test cases. Evaluate each into "
        "RUN/validation/eval and write the page again."
    )


def _nll_as_shipped(method: Method, held: Sequence[Run]) -> dict[Hashable, float]:
    """NLL of the whole image on validation cases that no fit has seen, by seed; NaN where that is not on record.

    Held-out cases of another fit are other cases, whose NLL is not to be compared.
    """
    score = score_of(list(held))
    as_trained = _by_seed(held, score) if score is not None and score.region == "all" else {}
    values: dict[Hashable, float] = {}
    for run in method.runs:
        chosen = {(record.get("choice") or {}).get("chosen") for record in run.corrections}
        if "posthoc" not in run.settings or chosen == {"none"}:
            values[run.seed] = as_trained.get(run.seed, math.nan)
        elif all(record.get("fitted_on") in VALIDATION for record in run.corrections):
            values[run.seed] = _mean([*map(_held_out, run.corrections)])
        else:
            values[run.seed] = math.nan
    return values


def _by_seed(held: Sequence[Run], score: Metric) -> dict[Hashable, float]:
    return {run.seed: mean_of_cases(run, score) for run in held}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _correction(members: Sequence[Method]) -> tuple[Method, str]:
    plain = next((method for method in members if not method.place[1]), None)
    evaluated = [method for method in members if method.place[1]]
    fitted = [method for method in evaluated if not _fitted_on_shown(method)]
    if not fitted:
        lacking = "is fitted on other cases than those shown" if evaluated else "has been evaluated here"
        return plain or members[0], f"{'As trained' if plain else 'As evaluated'}: no correction {lacking}."
    for method in fitted:
        records = method.runs[0].corrections
        if records and all(record.get("choice") for record in records):
            choice, on = records[0]["choice"], f"held-out {records[0].get('fitted_on', 'unknown')} cases"
            if choice["chosen"] == "none":
                return method, f"The network as trained: {on} chose no correction."
            return method, f"Correction chosen on {on}: {choice['chosen']}, {choice['why']}."
    scores = {method.label: _mean_held_out(method) for method in fitted}
    known = [method for method in fitted if math.isfinite(scores[method.label]) and not _guards(method)]
    best = min(known, key=lambda method: scores[method.label], default=None)
    before = math.nan if best is None else _mean_held_out(best, "none")
    if best is not None and not scores[best.label] >= before:
        return best, "The correction with the lowest NLL on held-out cases."
    if plain is None:
        return fitted[0], "The correction that was evaluated; nothing here says that it helps held-out cases."
    if not any(math.isfinite(score) for score in scores.values()):
        return plain, "As trained: no correction has figures on held-out cases that could choose it."
    return plain, "As trained: no correction lowers NLL on held-out cases and makes nothing worse there."


def _held_out(record: Mapping[str, Any], name: str | None = None) -> float:
    """Held-out NLL of the correction that a record is of, or of another candidate of its fits."""
    choice = record.get("choice") or {}
    figures = choice.get("candidates") or record.get("held_out") or {}
    return number(figures.get(name or choice.get("chosen") or record.get("method"), {}).get("nll"))


def _mean_held_out(method: Method, name: str | None = None) -> float:
    return _mean([_held_out(record, name) for run in method.runs for record in run.corrections])


def _fitted_on_shown(method: Method) -> bool:
    """Whether a correction was fitted on the test cases that the page is about: they may not choose what ships."""
    shown = [(run.split, record.get("fitted_on")) for run in method.runs for record in run.corrections]
    return any(split == fitted_on and split not in VALIDATION for split, fitted_on in shown)


def _guards(method: Method) -> bool:
    return any(record.get("guards") for run in method.runs for record in run.corrections)


def _seed(method: Method, held: Sequence[Run]) -> tuple[Run, str]:
    """The run to ship of a method's seeds: by NLL on validation, else by the metric that chose its checkpoint."""
    if len(method.runs) == 1:
        return method.runs[0], ""
    as_shipped = _nll_as_shipped(method, held)
    values = [-as_shipped[run.seed] for run in method.runs]
    score = score_of(list(held))
    if score is not None and not all(map(math.isfinite, values)):
        as_trained = _by_seed(held, score)
        values = [-as_trained.get(run.seed, math.nan) for run in method.runs]
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
        return content["method"] in [record.get("method") for record in run.corrections]
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
