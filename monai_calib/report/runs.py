"""Finds and reads evaluated runs: calibration.json, the tables of overlap and surface distance, the previews."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_calib.files import FileError, read_json
from monai_calib.metrics import CalibrationHistogram
from monai_calib.metrics.evaluated import Evaluated, read_evaluated

from .case_tables import RunError, case_figures, mean_of_defined, number, raw_table
from .protocols import Protocol, read_protocol
from .volumes import volume_errors

__all__ = ["Run", "RunError", "find_evaluations", "read_run", "read_runs"]

FORMAT = "monai_calib/calibration/1"
# A foreground class the network never finds, on average over all cases, did not get off the ground.
LEAST_DSC = 0.05


@dataclass(frozen=True, eq=False)
class Run:
    """One evaluated run; equal to itself only.

    ``values[name]`` has one figure a case, ``class_values[name]`` one a case and class, with NaN where undefined;
    both in the order of ``cases``. ``dsc`` and ``hd95_mm`` are among them when the run measured them, and the errors of
    :func:`~.volumes.volume_errors`.
    ``bins[region, num_bins]`` has voxels, hits and summed confidence, ``(cases, rows, 3, num_bins)``: a row for each
    class and a last one for the top label, which a multi-label run does not have.
    """

    evaluation: Path
    settings: Mapping[str, Any]
    class_names: tuple[str, ...]
    protocols: tuple[Protocol, ...]
    summary: Mapping[str, float]
    cases: tuple[str, ...]
    subjects: tuple[str, ...]
    values: Mapping[str, NDArray[np.float64]]
    class_values: Mapping[str, NDArray[np.float64]]
    bins: Mapping[tuple[str, int], NDArray[np.float64]]

    @property
    def seed(self) -> str:
        """The seed as written by the run, or "unknown"."""
        return str(self.settings.get("seed", "unknown"))

    @property
    def split(self) -> str:
        """The part of the data that was evaluated, or "unknown"."""
        return str(self.settings.get("split", "unknown"))

    @property
    def train_seconds(self) -> float:
        """Seconds of training, NaN if the run does not know them."""
        return number(self.settings.get("train_seconds"))

    @property
    def histograms(self) -> dict[str, list[Mapping[str, Any]]]:
        """The cases' histograms by region, read anew: those of a hundred runs are too many to keep in memory."""
        content = read_json(self.evaluation / "calibration.json", error=RunError)
        if content.get("format") == FORMAT:
            return _histograms(content["cases"])
        evaluated = read_evaluated(self.evaluation)
        return {region: [hist.to_json() for hist in evaluated.histograms(region)] for region in evaluated.regions}

    def missed_classes(self) -> tuple[str, ...]:
        """Foreground classes whose mean DSC is next to 0: the run did not converge. Empty without DSC."""
        dsc = self.class_values.get("dsc")
        if dsc is None:
            return ()
        defined = np.isfinite(dsc)
        means = np.where(defined, dsc, 0.0).sum(axis=0) / np.maximum(defined.sum(axis=0), 1)
        missed = defined.any(axis=0) & (means < LEAST_DSC)
        return tuple(self.class_names[index] for index in np.flatnonzero(missed))

    def preview(self, case: str) -> dict[str, NDArray[Any]] | None:
        """The arrays of ``previews/<case>.npz`` beside calibration.json, or None if the run kept none.

        Raises: :class:`RunError` if the file is damaged.
        """
        path = self.evaluation / "previews" / f"{case}.npz"
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as saved:
                arrays = {key: saved[key] for key in ("image", "label", "prediction", "confidence", "spacing")}
        except Exception as error:
            raise RunError(f"{path} is not a preview: {error}. Evaluate the run again or delete the file.") from error
        shapes = {arrays[key].shape for key in ("image", "label", "prediction", "confidence")}
        if len(shapes) != 1 or len(next(iter(shapes))) != 2:
            raise RunError(f"{path}: expected four slices of one 2D size, got {shapes}. Evaluate the run again.")
        return arrays


def find_evaluations(folder: Path) -> list[Path]:
    """Every ``eval*/calibration.json`` in a folder and below it, sorted: a run's own, those of its post-hoc variants
    (``posthoc/<method>/eval``) and of its other splits, or all runs of a benchmark.

    Raises: :class:`RunError` if there is none.
    """
    found = sorted(
        path
        for path in folder.rglob("eval*/calibration.json")
        # what is hidden or partial is being written, or was when its process was killed
        if not any(part.startswith(".") or part.endswith(".partial") for part in path.relative_to(folder).parts)
        and not (path.parent.name.endswith(".partial"))
    )
    if not found:
        raise _missing(folder / "eval" / "calibration.json")
    return found


def _missing(path: Path) -> RunError:
    return RunError(
        f"{path} does not exist, nor another eval/calibration.json below {path.parent.parent}. A bundle's evaluation "
        "writes it: python -m monai.bundle run --config_file \"['configs/train.json', 'configs/evaluate.json']\""
    )


def read_runs(folders: Iterable[Path]) -> list[Run]:
    """Reads every evaluation in the folders; one named twice is read once.

    Raises: :class:`RunError` if there is none, or as :func:`read_run`.
    """
    files = dict.fromkeys(path for folder in folders for path in find_evaluations(Path(folder).resolve()))
    if not files:
        raise RunError("A report needs at least one run folder: python -m monai_calib report RUN [RUN ...]")
    return [read_run(path.parent) for path in files]


def read_run(folder: Path) -> Run:
    """Reads ``folder/eval``, or ``folder`` itself: calibration.json, and the raw tables of Dice and HD95 if there.

    Raises: :class:`RunError` if calibration.json is missing, is no JSON, has another format or lacks something, or if
    a table does not fit its cases.
    """
    folder = Path(folder)
    evaluation = folder if (folder / "calibration.json").is_file() else folder / "eval"
    path = evaluation / "calibration.json"
    if not path.is_file():
        raise _missing(path)
    content = read_json(path, advice="Evaluate the run again.", error=RunError)
    try:
        if isinstance(content, dict) and content.get("format") == FORMAT:
            return _parse(evaluation, content)
        return _of_evaluated(read_evaluated(evaluation))
    except FileError as error:
        raise RunError(str(error)) from error
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        what = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise RunError(f"{path} is not a complete {FORMAT} file: {what}. Evaluate the run again.") from error


def _parse(evaluation: Path, content: dict[str, Any]) -> Run:
    num_classes = int(content["num_classes"])
    names = [str(name) for name in content.get("class_names") or ()]
    if len(names) != num_classes:
        names = ["background", *(f"class {index}" for index in range(1, num_classes))]
    cases = tuple(str(case["case"]) for case in content["cases"])
    if not cases or len(set(cases)) != len(cases):
        path = evaluation / "calibration.json"
        raise RunError(f"{path}: expected at least one case and each once, got {len(cases)} ({len(set(cases))} names).")
    values, class_values = case_figures([case["metrics"] for case in content["cases"]], num_classes)
    for key, pattern in {"dsc": "*dice_raw.csv", "hd95_mm": "*hd95_mm_raw.csv"}.items():
        table = raw_table(evaluation, pattern, cases, num_classes)
        if table is not None:
            class_values[key] = table
            values[key] = mean_of_defined(table)
    protocols = tuple(read_protocol(name, fields) for name, fields in content["protocols"].items())
    bins = _bins(evaluation, cases, _histograms(content["cases"]), protocols)
    values |= volume_errors(bins, num_classes)
    return Run(
        evaluation=evaluation,
        settings=_settings(evaluation, content.get("run") or {}),
        class_names=tuple(names),
        protocols=protocols,
        summary={str(key): number(value) for key, value in content["summary"].items()},
        cases=cases,
        subjects=tuple(str(case.get("subject") or case["case"]) for case in content["cases"]),
        values=values,
        class_values=class_values,
        bins=bins,
    )


def _of_evaluated(evaluated: Evaluated) -> Run:
    """A run by its evaluated folder, which holds the metrics of every case."""
    classes = evaluated.classes
    values: dict[str, NDArray[np.float64]] = {}
    class_values: dict[str, NDArray[np.float64]] = {}
    for name, metric in evaluated.metrics.items():
        key = {"mean_dice": "dsc"}.get(name, name)
        table = evaluated.class_values(name)
        if metric.per != "class":
            values[key] = table[:, 0]
            continue
        if metric.classes and set(metric.classes) <= set(classes):
            class_values[key] = np.full((len(table), len(classes)), np.nan)
            class_values[key][:, [classes.index(label) for label in metric.classes]] = table
        values[key] = mean_of_defined(table)
    protocols = tuple(read_protocol(name, protocol.to_json()) for name, protocol in evaluated.protocols.items())
    wanted: dict[int, list[str]] = {}
    for protocol in protocols:
        for region in protocol.regions:
            if region in evaluated.regions and region not in wanted.setdefault(protocol.diagram_bins, []):
                wanted[protocol.diagram_bins].append(region)
    bins = {
        (region, size): table
        for size, regions in wanted.items()
        for region, table in evaluated.all_bins(size, regions).items()
    }
    return Run(
        evaluation=evaluated.folder,
        settings=_settings(evaluated.folder, evaluated.run),
        class_names=tuple(classes),
        protocols=protocols,
        summary=dict(evaluated.summary),
        cases=tuple(case.case for case in evaluated.cases),
        subjects=tuple(case.subject or case.case for case in evaluated.cases),
        values=values,
        class_values=class_values,
        bins=bins,
    )


def _settings(evaluation: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    """What the evaluation says of its run, what its training says, and what its folder says: the post-hoc method.

    ``models/training.json`` lies in the run's folder, which holds those of other splits and of post-hoc variants.
    """
    run = evaluation.parent
    records = [folder / "models" / "training.json" for folder in (run, *run.parents[:2])]
    record = next((path for path in records if path.is_file()), None)
    try:
        trained: Mapping[str, Any] = {} if record is None else json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{record} cannot be read as JSON: {error}. Train the run again or delete the file.") from error
    posthoc = said.get("posthoc") or (run.name if run.parent.name == "posthoc" else None)
    seconds = said.get("train_seconds", trained.get("seconds"))
    settings = {**trained.get("settings", {}), **said, "posthoc": posthoc, "train_seconds": seconds}
    return {key: value for key, value in settings.items() if value is not None}


def _histograms(cases: list[dict[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """By region, for the regions that every case has."""
    regions = {region for case in cases for region in case.get("histograms", {})}
    return {
        region: [case["histograms"][region] for case in cases]
        for region in sorted(regions)
        if all(region in case["histograms"] for case in cases)
    }


def _bins(
    evaluation: Path,
    cases: tuple[str, ...],
    histograms: Mapping[str, list[Mapping[str, Any]]],
    protocols: tuple[Protocol, ...],
) -> dict[tuple[str, int], NDArray[np.float64]]:
    sizes = dict.fromkeys((region, protocol.diagram_bins) for protocol in protocols for region in protocol.regions)
    tables: dict[tuple[str, int], list[list[NDArray[np.float64]]]] = {}
    for region, num_bins in sizes:
        for case, saved in zip(cases, histograms.get(region, ()), strict=region in histograms):
            try:
                hist = CalibrationHistogram.from_json(dict(saved))
                rows = [*range(hist.num_classes), *([] if hist.activation == "sigmoid" else [None])]
                parts = [hist.bins(num_bins, row) for row in rows]
            except (KeyError, TypeError, ValueError) as error:
                path = evaluation / "calibration.json"
                raise RunError(f"{path}: histogram of case {case}, region {region}, cannot be read: {error}") from error
            columns = [np.stack([part.count.numpy(), part.hits.numpy(), part.confidence.numpy()]) for part in parts]
            tables.setdefault((region, num_bins), []).append(columns)
    return {key: np.array(table, dtype=np.float64) for key, table in tables.items()}
