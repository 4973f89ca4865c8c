"""Reads the folder of an evaluated run: calibration.json, the tables of overlap and surface distance, the previews."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Protocol", "Run", "RunError", "read_run", "read_runs", "region_in_words"]

FORMAT = "monai_calib/calibration/1"
# A foreground class the network never finds, on average over all cases, did not get off the ground.
LEAST_DSC = 0.05


class RunError(ValueError):
    """A run folder that cannot be read; says which file, what was expected, what was got and what to do."""


@dataclass(frozen=True)
class Protocol:
    """How calibration was measured: regions, bins, reductions over cases, and plain words about it."""

    name: str
    regions: tuple[str, ...]
    num_bins: int | None
    reductions: tuple[str, ...]
    description: str
    measures: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Run:
    """One evaluated run; equal to itself only.

    ``values[name]`` has one figure a case, ``class_values[name]`` one a case and class, with NaN where undefined;
    both in the order of ``cases``. ``dsc`` and ``hd95_mm`` are among them when the run measured them.
    """

    folder: Path
    settings: Mapping[str, Any]
    class_names: tuple[str, ...]
    protocols: tuple[Protocol, ...]
    summary: Mapping[str, float]
    cases: tuple[str, ...]
    subjects: tuple[str, ...]
    values: Mapping[str, NDArray[np.float64]]
    class_values: Mapping[str, NDArray[np.float64]]
    histograms: Mapping[str, tuple[Mapping[str, Any], ...]]

    @property
    def seed(self) -> str:
        """The seed as written by the run, or "unknown"."""
        return str(self.settings.get("seed", "unknown"))

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
        """The arrays of ``eval/previews/<case>.npz``, or None if the run kept none.

        Raises: :class:`RunError` if the file is damaged.
        """
        path = self.folder / "eval" / "previews" / f"{case}.npz"
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


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Reads several run folders; one named twice is read once.

    Raises: :class:`RunError` if there is none, or as :func:`read_run` does.
    """
    distinct = list(dict.fromkeys(Path(folder).resolve() for folder in folders))
    if not distinct:
        raise RunError("A report needs at least one run folder: python -m monai_calib report RUN [RUN ...]")
    return [read_run(folder) for folder in distinct]


def read_run(folder: Path) -> Run:
    """Reads ``folder/eval``: calibration.json, and the raw tables of Dice and HD95 if they are there.

    Raises: :class:`RunError` if calibration.json is missing, is no JSON, has another format or lacks something, or if
    a table does not fit its cases.
    """
    path = Path(folder) / "eval" / "calibration.json"
    content = _read_json(path)
    try:
        return _parse(Path(folder), content)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        what = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise RunError(f"{path} is not a complete {FORMAT} file: {what}. Evaluate the run again.") from error


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RunError(
            f"{path} does not exist. A run folder holds eval/calibration.json, written by the bundle's evaluation: "
            "python -m monai.bundle run --config_file \"['configs/train.json', 'configs/evaluate.json']\""
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as JSON: {error}. Evaluate the run again.") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise RunError(f"{path}: expected format {FORMAT!r}, got {found!r}. Evaluate the run with this version.")
    return content


def _parse(folder: Path, content: dict[str, Any]) -> Run:
    num_classes = int(content["num_classes"])
    names = [str(name) for name in content.get("class_names") or ()]
    if len(names) != num_classes:
        names = ["background", *(f"class {index}" for index in range(1, num_classes))]
    cases = tuple(str(case["case"]) for case in content["cases"])
    if not cases or len(set(cases)) != len(cases):
        raise RunError(f"{folder}: expected at least one case and each once, got {len(cases)} in calibration.json.")
    values, class_values = _case_figures([case["metrics"] for case in content["cases"]], num_classes)
    for key, pattern in {"dsc": "*dice_raw.csv", "hd95_mm": "*hd95_mm_raw.csv"}.items():
        table = _raw_table(folder / "eval", pattern, cases, num_classes)
        if table is not None:
            class_values[key] = table
            values[key] = _mean_of_defined(table)
    regions = {region for case in content["cases"] for region in case.get("histograms", {})}
    return Run(
        folder=folder,
        settings=dict(content.get("run") or {}),
        class_names=tuple(names),
        protocols=tuple(_protocol(name, fields) for name, fields in content["protocols"].items()),
        summary={str(key): _number(value) for key, value in content["summary"].items()},
        cases=cases,
        subjects=tuple(str(case.get("subject") or case["case"]) for case in content["cases"]),
        values=values,
        class_values=class_values,
        histograms={
            region: tuple(case["histograms"][region] for case in content["cases"])
            for region in sorted(regions)
            if all(region in case["histograms"] for case in content["cases"])
        },
    )


def _protocol(name: str, fields: Mapping[str, Any]) -> Protocol:
    regions = fields["regions"] if "regions" in fields else [fields["region"]]
    bins = fields.get("num_bins")
    return Protocol(
        name=str(name),
        regions=tuple(str(region) for region in regions),
        num_bins=None if bins is None else int(bins),
        reductions=tuple(str(x) for x in (fields["reductions"] if "reductions" in fields else [fields["reduction"]])),
        description=str(fields.get("description", "")),
        measures=tuple(str(measure) for measure in fields["metrics"]),
    )


def region_in_words(name: str) -> str:
    """What a region's name in the reports means; a name of the user's own stays as it is.

    Example:
        >>> region_in_words("boundary2mm"), region_in_words("all"), region_in_words("lung")
        ('boundary band of 2 mm', 'whole volume', 'lung')
    """
    found = re.fullmatch(r"(all|foreground|predicted|union|dilated|boundary|bbox)(?:([\d.]+)mm)?", name)
    if not found:
        return name
    kind, size = found.groups()
    words = {
        "all": "whole volume",
        "foreground": "true foreground",
        "predicted": "predicted foreground",
        "union": "union of truth and prediction",
        "dilated": f"union dilated by {size} mm",
        "boundary": f"boundary band of {size} mm",
        "bbox": "bounding box" + (f" and {size} mm" if size else ""),
    }
    return words[kind]


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _case_figures(
    rows: Sequence[Mapping[str, Any]], num_classes: int
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """Figures of one number a case, and those of one number a class, whose mean over defined classes is the case's."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    values, class_values = {}, {}
    for key in keys:
        column = [row.get(key) for row in rows]
        if any(isinstance(value, list) and len(value) == num_classes for value in column):
            undefined = [None] * num_classes
            table = [[_number(x) for x in (value if isinstance(value, list) else undefined)] for value in column]
            class_values[key] = np.array(table)
            values[key] = _mean_of_defined(class_values[key])
        else:
            flat = [value[0] if isinstance(value, list) and value else value for value in column]
            values[key] = np.array([_number(value) for value in flat])
    return values, class_values


def _mean_of_defined(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over classes, leaving out NaN (class absent) but not infinity (class missed)."""
    defined = ~np.isnan(table)
    count = defined.sum(axis=1)
    return np.where(count > 0, np.where(defined, table, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)


def _raw_table(folder: Path, pattern: str, cases: Sequence[str], num_classes: int) -> NDArray[np.float64] | None:
    """Rows of a ``<metric>_raw.csv`` of MONAI's MetricsSaver, in the order of ``cases``, background as NaN."""
    paths = sorted(path for path in folder.glob(pattern) if "surface" not in path.name)
    if not paths:
        return None
    path = paths[0]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file))
        figures = {_case_id(row[0]): [float(x) for x in row[1 : len(header) - 1]] for row in rows if row}
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is not a table of MetricsSaver: {error}. Evaluate the run again.") from error
    missing = [case for case in cases if case not in figures]
    if missing:
        raise RunError(
            f"{path} lacks {len(missing)} of the {len(cases)} cases of calibration.json, the first {missing[0]!r}. "
            "Both must come from the same evaluation; evaluate the run again."
        )
    table = np.array([figures[case] for case in cases], dtype=np.float64)
    if table.ndim != 2 or table.shape[1] not in (num_classes, num_classes - 1):
        raise RunError(f"{path}: expected a column for each of {num_classes} classes, with or without background.")
    foreground = table[:, -(num_classes - 1) :]
    return np.concatenate([np.full((len(cases), 1), np.nan), foreground], axis=1)


def _case_id(path: str) -> str:
    """The name the handlers give the case of an image file: without folder and extension."""
    name = Path(path.replace("\\", "/")).name.removesuffix(".gz")
    return name.rsplit(".", 1)[0] if "." in name[1:] else name
