"""The evaluated folder: ``calibration.json``, to be read, and ``calibration.npz``, the histograms, exact.

``calibration.json`` holds ``format``, ``run`` (settings, version), ``protocols``, ``classes``, ``metrics`` (a
:class:`~monai_calib.metrics.metric.Metric` a name), ``cases`` (``[{case, subject, spacing, metrics: {name: value or
list}}]``), ``summary`` and ``left_out`` (cases without a value, by metric). NaN is null, infinity the word ``"inf"``.

``calibration.npz`` is read with plain NumPy, a case at a time:

>>> npz = np.load("eval/calibration.npz")                                              # doctest: +SKIP
>>> regions, rows, lower = npz["regions"], int(npz["rows"]), npz["lower"]               # doctest: +SKIP
>>> steps, count, hits, above = npz["case_0"][:4].astype("int64")                       # doctest: +SKIP
>>> place = steps.cumsum()                                                              # doctest: +SKIP
>>> confidence = count * lower[place % len(lower)] + above * 2.0**-30                   # doctest: +SKIP
>>> table = np.zeros((len(regions), rows, len(lower)))                                  # doctest: +SKIP
>>> table.flat[place] = count     # likewise hits, confidence                           # doctest: +SKIP

Only filled bins are kept. A row is a class, and the last one, unless predictions were multi-label, the top label.
``lower`` holds the bins' lower edges. A fifth line of a case, if there is one, is what soft labels add to the hits, in
units of 2^-30. (A case of more than 8 billion voxels is float64, and its fourth line the confidence itself.) Beside the
cases stand ``cases`` and ``classes`` (names), ``scores`` (cases, regions, 2: sums of NLL and Brier score), ``problems``
(cases, regions, 5) and ``updates`` (cases, regions).
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_calib.files import FileError, read_json
from monai_calib.metrics.case_table import ADVICE, MOST_ROWS, Store
from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.metric import Metric, mean_without_nan
from monai_calib.metrics.protocols import Protocol

__all__ = ["EVALUATION_FORMAT", "Evaluated", "EvaluatedCase", "Value", "read_evaluated"]

EVALUATION_FORMAT = "monai_calib/evaluation/1"
Value = float | tuple[float, ...]


class EvaluatedCase(NamedTuple):
    """One case: its name, whom it was taken from (the case itself if unknown), voxel size, and value(s) per metric."""

    case: str
    subject: str
    spacing: tuple[float, ...] | None
    values: Mapping[str, Value]

    def value(self, name: str) -> float:
        """A metric as one number: the mean of its values, NaN left out; NaN where it has none."""
        found = self.values.get(name, math.nan)
        return found if isinstance(found, float) else mean_without_nan(found)


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Content of an evaluated folder; histograms are read from the file when they are asked for.

    Attributes:
        folder: where it lies.
        run: settings of what was evaluated.
        classes: names of the channels.
        protocols: by name.
        metrics: descriptions of all columns of the cases and entries of the summary, by name.
        cases: in the order of the file.
        summary: one value per summary entry, NaN where nothing was measured.
        regions: names of the regions that have histograms.
        left_out: names of the cases that have no value, by metric.
        checksum: of the histograms that belong to it.
    """

    folder: Path
    run: Mapping[str, Any]
    classes: tuple[str, ...]
    protocols: Mapping[str, Protocol]
    metrics: Mapping[str, Metric]
    cases: tuple[EvaluatedCase, ...]
    summary: Mapping[str, float]
    regions: tuple[str, ...]
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    checksum: object = None

    def values(self, name: str) -> NDArray[np.float64]:
        """One number a case, ``(cases,)``, NaN where it has none; see :meth:`EvaluatedCase.value`."""
        return np.array([case.value(name) for case in self.cases], dtype=np.float64)

    def class_values(self, name: str) -> NDArray[np.float64]:
        """The values of a metric per class, ``(cases, classes)``; ``KeyError`` for an unknown metric."""
        width = max(1, len(self.metrics[name].classes))
        nothing = (math.nan,) * width
        rows = [case.values.get(name, nothing) for case in self.cases]
        return np.array([row if isinstance(row, tuple) else (row,) for row in rows], dtype=np.float64)

    def histograms(self, region: str) -> Iterator[CalibrationHistogram]:
        """The histograms of a region in the order of the cases, one at a time.

        Raises: ``KeyError`` for a region that was not measured; :class:`~monai_calib.files.FileError` for a damaged
            file.
        """
        index = self._index(region)
        with self._store() as store:
            for case in range(len(self.cases)):
                yield store.histogram(case, index)

    def pooled(self, region: str) -> CalibrationHistogram:
        """The histogram of a region over all cases: what one diagram is drawn of, and what a site may give away.

        Raises: as :meth:`histograms`; ``ValueError`` for a folder without cases.
        """
        total = None
        for histogram in self.histograms(region):
            total = histogram if total is None else total.merge(histogram)
        if total is None:
            raise ValueError(f"{self.folder}: expected at least one case, got none. Evaluate again.")
        return total

    def bins(self, region: str, num_bins: int) -> NDArray[np.float64]:
        """Voxels, hits and summed confidence, ``(cases, rows, 3, num_bins)``: a row a class and a last one for the top
        label, which multi-label predictions do not have.

        Raises: as :meth:`histograms`; ``ValueError`` for a number of bins that is no divisor of the histograms'.
        """
        self._index(region)
        return self.all_bins(num_bins, [region])[region]

    def all_bins(self, num_bins: int, regions: Sequence[str] | None = None) -> dict[str, NDArray[np.float64]]:
        """:meth:`bins` of several regions, all by default, by name, in one pass over the file."""
        chosen = [self._index(region) for region in (self.regions if regions is None else regions)]
        with self._store() as store:
            parts = [store.coarse(case, num_bins)[chosen] for case in range(len(self.cases))]
        return {self.regions[index]: np.stack([part[i] for part in parts]) for i, index in enumerate(chosen)}

    @contextmanager
    def _store(self) -> Iterator[Store]:
        """The file of histograms that belongs to this evaluation."""
        with Store(self.folder / "calibration.npz") as store:
            store.expect([case.case for case in self.cases], self.regions, self.checksum)
            yield store

    def _index(self, region: str) -> int:
        if region not in self.regions:
            raise KeyError(f"{self.folder}: no histograms of region {region!r}, only of {', '.join(self.regions)}")
        return self.regions.index(region)


def read_evaluated(
    folder: str | os.PathLike[str], error: Callable[[str], Exception] = FileError, advice: str = ADVICE
) -> Evaluated:
    """Read an evaluated folder.

    Args:
        folder: the folder that holds ``calibration.json``, or that file.
        error: what to raise, made from the message.
        advice: what to do about a file that cannot be read.

    Raises: ``error`` naming the file: missing, of an older version, damaged.
    """
    path = Path(folder)
    path = path if path.suffix == ".json" else path / "calibration.json"
    content = read_json(path, advice=advice, error=error)
    found = content.get("format") if isinstance(content, dict) else None
    if isinstance(found, str) and found.startswith("monai_calib/calibration/"):
        raise error(f"{path}: written by an older monai_calib ({found}); this one reads {EVALUATION_FORMAT}. {advice}")
    if found != EVALUATION_FORMAT:
        raise error(f"{path}: expected format {EVALUATION_FORMAT!r}, got {found!r:.100}. {advice}")
    try:
        return _parse(path.parent, content)
    except Exception as problem:
        reason = f"{problem} is missing" if isinstance(problem, KeyError) else problem
        raise error(f"{path}: expected a complete evaluation, got: {reason}. {advice}") from problem


def _parse(folder: Path, content: Mapping[str, Any]) -> Evaluated:
    classes = tuple(_text(name, "class name") for name in _list(content["classes"], "classes"))
    if not 0 < len(classes) < MOST_ROWS:
        raise ValueError(f"{len(classes)} classes")
    metrics = {str(name): Metric.from_json({"name": name, **data}) for name, data in content["metrics"].items()}
    cases = []
    for data in _list(content["cases"], "cases"):
        name = _text(data["case"], "case")
        values = {str(key): _from_json(value, f"case {name}: {key}") for key, value in data["metrics"].items()}
        for key, value in values.items():
            width = len(metrics[key].classes) if key in metrics else -1
            if (width or None) != (len(value) if isinstance(value, tuple) else None):
                raise ValueError(f"case {name}: {key}: values do not fit the metric's classes")
        spacing = None if data.get("spacing") is None else _from_json(data["spacing"], f"case {name}: spacing")
        if spacing is not None and not (isinstance(spacing, tuple) and all(0 < step < math.inf for step in spacing)):
            raise ValueError(f"case {name}: spacing: expected a list of sizes in mm, got {data['spacing']!r:.100}")
        cases.append(EvaluatedCase(name, _text(data.get("subject", name), "subject"), spacing, values))
    names = [case.case for case in cases]
    if len(set(names)) != len(names):
        twice = [name for name, times in Counter(names).items() if times > 1][:10]
        raise ValueError(f"cases named twice: {', '.join(twice)}")
    summary = {str(name): _number(value, f"summary: {name}") for name, value in content["summary"].items()}
    missing = sorted(set(summary) - set(metrics))
    if missing:
        raise ValueError(f"no description of {', '.join(missing[:10])}")
    protocols = [Protocol.from_config({**data, "name": name}) for name, data in content["protocols"].items()]
    return Evaluated(
        folder=folder,
        run=dict(content["run"]),
        classes=classes,
        protocols={protocol.name: protocol for protocol in protocols},
        metrics=metrics,
        cases=tuple(cases),
        summary=summary,
        regions=tuple(_text(name, "region") for name in _list(content["regions"], "regions")),
        checksum=content.get("histograms"),
        left_out={str(name): [str(case) for case in _list(of, "left_out")] for name, of in content["left_out"].items()},
    )


def _from_json(value: Any, what: str) -> Value:
    if isinstance(value, list):
        return tuple(_number(x, what) for x in value)
    return _number(value, what)


def _number(value: Any, what: str) -> float:
    if value is None:
        return math.nan
    if value in ("inf", "-inf") or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return float(value)
    raise ValueError(f"{what}: expected a number, got {value!r:.100}")


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what}: expected a text, got {value!r:.100}")
    value.encode()  # lone surrogates
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{what}: expected a list, got {type(value).__name__}")
    return value
