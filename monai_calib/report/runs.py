"""Finds and reads evaluated runs: calibration.json, the tables of overlap and surface distance, the previews."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_calib.files import FileError, read_json
from monai_calib.metrics.evaluated import Evaluated, read_evaluated
from monai_calib.metrics.metric import Metric
from monai_calib.metrics.protocols import Protocol
from monai_calib.metrics.regions import Region

__all__ = ["Run", "RunError", "find_evaluations", "number", "read_run", "read_runs"]

# A foreground class the network never finds, on average over all cases, did not get off the ground.
LEAST_DSC = 0.05


class RunError(ValueError):
    """A run folder that cannot be read; says which file, what was expected, what was got and what to do."""


def number(value: Any) -> float:
    return float("nan") if value is None else float(value)


@dataclass(frozen=True, eq=False)
class Run:
    """One evaluated run; equal to itself only.

    ``metrics`` describes what was measured; ``values[name]`` has one number per case, ``class_values[name]`` one per
    case and class, with NaN where undefined; both in the order of ``cases``.
    ``bins[region, num_bins]`` has voxels, hits and summed confidence, ``(cases, rows, 3, num_bins)``: a row for each
    class and a last one for the top label, which a multi-label run does not have.
    """

    evaluation: Path
    settings: Mapping[str, Any]
    class_names: tuple[str, ...]
    protocols: tuple[Protocol, ...]
    metrics: Mapping[str, Metric]
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
    def corrections(self) -> list[Mapping[str, Any]]:
        """Records of its correction, one for each sigmoid channel; none as trained, or where nothing was recorded."""
        record = self.settings.get("correction")
        return list(record.get("channels", [record])) if isinstance(record, Mapping) else []

    def missed_classes(self) -> tuple[str, ...]:
        """Foreground classes whose mean DSC is next to 0: the run did not converge. Empty without DSC."""
        overlap = next((name for name in self.class_values if self.metrics[name].kind == "dice"), None)
        if overlap is None:
            return ()
        dsc = self.class_values[overlap]
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
            if not all(isinstance(array, np.ndarray) for array in arrays.values()):  # bytes, of what is no array
                raise ValueError("a member is no array")
        except Exception as error:
            raise RunError(f"{path} is not a preview: {error}. Evaluate the run again or delete the file.") from error
        _check_spacing(path, arrays["spacing"])
        shapes = {arrays[key].shape for key in ("image", "label", "prediction", "confidence")}
        if len(shapes) != 1 or len(next(iter(shapes))) != 2:
            raise RunError(f"{path}: expected four slices of one 2D size, got {shapes}. Evaluate the run again.")
        for key in ("image", "label", "prediction", "confidence"):
            array = arrays[key]
            if array.dtype.kind not in "biuf" or not array.size or not (np.isfinite(array) & (array >= 0)).all():
                raise RunError(f"{path}: expected {key} as numbers from 0, got others. Evaluate the run again.")
        return arrays


def _check_spacing(path: Path, spacing: NDArray[Any]) -> None:
    """Raise for a voxel size that no picture can be drawn with."""
    numbers = spacing.dtype.kind in "iuf" and spacing.shape in ((2,), (3,))
    if not (numbers and np.isfinite(spacing).all() and (spacing > 0).all()):
        raise RunError(
            f"{path}: expected spacing as 2 or 3 sizes above 0, got {spacing.tolist()!r:.100}. Evaluate the run again."
        )


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
    try:
        return _of_evaluated(read_evaluated(evaluation))
    except FileError as error:
        raise RunError(str(error)) from error


def _of_evaluated(evaluated: Evaluated) -> Run:
    """A run by its evaluated folder, which holds the metrics of every case."""
    classes = evaluated.classes
    values: dict[str, NDArray[np.float64]] = {}
    class_values: dict[str, NDArray[np.float64]] = {}
    for name, metric in evaluated.metrics.items():
        if metric.reduction is not None:
            continue
        values[name] = evaluated.values(name)
        if metric.classes and set(metric.classes) <= set(classes):
            table = evaluated.class_values(name)
            class_values[name] = np.full((len(table), len(classes)), np.nan)
            class_values[name][:, [classes.index(label) for label in metric.classes]] = table
    protocols = tuple(evaluated.protocols.values())
    wanted: dict[int, list[str]] = {}
    for protocol in protocols:
        for region in map(Region.parse, protocol.regions):
            if region.name in evaluated.regions and region.name not in wanted.setdefault(protocol.num_bins, []):
                wanted[protocol.num_bins].append(region.name)
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
        metrics=evaluated.metrics,
        summary=dict(evaluated.summary),
        cases=tuple(case.case for case in evaluated.cases),
        subjects=tuple(case.subject or case.case for case in evaluated.cases),
        values=values,
        class_values=class_values,
        bins=bins,
    )


def _settings(evaluation: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from what the evaluation says of its run, and what its training says.

    ``models/training.json`` lies in the run's folder, which holds those of other splits and of corrections.
    """
    run = evaluation.parent
    records = [folder / "models" / "training.json" for folder in (run, *run.parents[:2])]
    record = next((path for path in records if path.is_file()), None)
    advice = "Train the run again or delete the file."
    trained: Any = {} if record is None else read_json(record, advice=advice, error=RunError)
    if not isinstance(trained, dict) or not isinstance(trained.get("settings", {}), dict):
        raise RunError(f"{record}: expected the record of a training with its settings, got another content. {advice}")
    seconds = said.get("train_seconds", trained.get("seconds"))
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float, type(None))):
        raise RunError(f"{record}: expected seconds as a number, got {seconds!r:.100}. {advice}")
    settings = {**trained.get("settings", {}), **said, "train_seconds": seconds}
    # Where stored maps lie (``maps``) is for the command that corrects them; a page holds no paths.
    return {key: value for key, value in settings.items() if value is not None and key != "maps"}
