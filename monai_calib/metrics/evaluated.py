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

import json
import logging
import math
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from monai_calib.files import FileError, atomic_path, read_json, write_json
from monai_calib.metrics.bins import coarse_of_fine, fine_edges
from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.metric import Metric
from monai_calib.metrics.protocols import Protocol
from monai_calib.metrics.sums import FIXED_POINT, PROBLEMS, Sums

__all__ = ["EVALUATION_FORMAT", "Evaluated", "EvaluatedCase", "EvaluatedWriter", "read_evaluated"]

EVALUATION_FORMAT = "monai_calib/evaluation/1"
_ADVICE = "Evaluate the run again."
_log = logging.getLogger(__name__)
_MOST_ROWS = 1 << 16
_PARTIAL = ".calibration.npz.partial"
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
        return found if isinstance(found, float) else _mean(found)


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
        with _Store(self.folder / "calibration.npz") as store:
            store.expect(self)
            for case in range(len(self.cases)):
                yield store.histogram(case, index)

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
        with _Store(self.folder / "calibration.npz") as store:
            store.expect(self)
            parts = [store.coarse(case, num_bins)[chosen] for case in range(len(self.cases))]
        return {self.regions[index]: np.stack([part[i] for part in parts]) for i, index in enumerate(chosen)}

    def _index(self, region: str) -> int:
        if region not in self.regions:
            raise KeyError(f"{self.folder}: no histograms of region {region!r}, only of {', '.join(self.regions)}")
        return self.regions.index(region)


class EvaluatedWriter:
    """Writes an evaluated folder case by case; what stays in memory is a few kilobytes a case.

    The folder's two files are there when :meth:`close` has returned, and not before; where more files belong to one
    result, write into the folder of :func:`monai_calib.files.atomic_folder`.

    Args:
        folder: where to write; it is made.
        classes: names of the channels.
        protocols: what was measured.
        metrics: descriptions of the columns that :meth:`add` gets, and of the summary.
        run: plain values that say what was evaluated.

    Example:
        >>> import tempfile
        >>> protocol = Protocol("mine", ["all"], ["ece"])
        >>> hist = CalibrationHistogram(2)
        >>> hist.update(torch.zeros(1, 2, 4), torch.zeros(1, 4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     writer = EvaluatedWriter(folder, ["background", "lesion"], [protocol])
        ...     writer.add("a", {"ece_all_15bins": 0.5}, {"all": hist})
        ...     writer.close({"ece_all_15bins_macro": 0.5})
        ...     evaluated = read_evaluated(folder)
        ...     evaluated.values("ece_all_15bins"), evaluated.bins("all", 15).shape
        (array([0.5]), (1, 3, 3, 15))
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        classes: Sequence[str],
        protocols: Sequence[Protocol],
        metrics: Sequence[Metric] = (),
        run: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.classes = list(classes)
        self.protocols = list(protocols)
        described = [m for p in protocols for m in (*p.case_metrics(classes), *p.summary_metrics(classes))]
        self.metrics = {metric.name: metric for metric in (*described, *metrics)}
        self.run = dict(run or {})
        self._cases: list[EvaluatedCase] = []
        self._seen: Counter[str] = Counter()
        self._rest: list[_Rest] = []
        self._settings: dict[str, Any] | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._zip = zipfile.ZipFile(self.folder / _PARTIAL, "w", zipfile.ZIP_DEFLATED, compresslevel=1)

    def add(
        self,
        case: str,
        values: Mapping[str, float | Sequence[float]],
        histograms: Mapping[str, CalibrationHistogram],
        subject: str = "",
        spacing: Sequence[float] | None = None,
    ) -> None:
        """Write one case: its values per metric and its histogram per region, the same regions for every case."""
        self.add_table(CaseTable.pack(histograms), case, values, subject, spacing)

    def add_table(
        self,
        table: CaseTable,
        case: str,
        values: Mapping[str, float | Sequence[float]],
        subject: str = "",
        spacing: Sequence[float] | None = None,
    ) -> None:
        """Write one case whose histograms are packed already."""
        if self._settings not in (None, table.settings):
            raise ValueError(f"case {case}: expected histograms with {self._settings}, got {table.settings}")
        self._settings = table.settings
        _write_array(self._zip, f"case_{len(self._cases)}", table.bins)
        self._rest.append(table.rest)
        plain = {name: _value(value) for name, value in values.items()}
        self._seen[case] += 1
        if self._seen[case] > 1:
            _log.warning(
                "case %s was measured more than once. A sampler that pads uneven ranks repeats cases (use "
                "monai.data.DistributedSampler with even_divisible=False), or two cases bear the same name.",
                case,
            )
            case = f"{case} ({self._seen[case]})"
        self._cases.append(EvaluatedCase(case, subject, None if spacing is None else tuple(spacing), plain))

    def close(
        self,
        summary: Mapping[str, float],
        metrics: Sequence[Metric] = (),
        values: Mapping[str, Sequence[float | Sequence[float]]] | None = None,
    ) -> None:
        """Write what is known at the end, and the two files.

        Args:
            summary: one value per summary entry.
            metrics: further descriptions; names that none describes are described by their name alone.
            values: of further metrics, by name: a value (or a row of values per class) a case, in the order of cases.
        """
        more = dict(values or {})
        for name, column in more.items():
            if len(column) != len(self._cases):
                raise ValueError(f"metric {name!r}: expected {len(self._cases)} values, one a case, got {len(column)}")
        described = self.metrics | {metric.name: metric for metric in metrics}
        cases = []
        for i, case in enumerate(self._cases):
            of_case = {**case.values, **{name: _value(column[i]) for name, column in more.items()}}
            for name, value in of_case.items():
                if (
                    isinstance(value, tuple)
                    and len(value) == 1
                    and getattr(described.get(name), "per", "case") == "case"
                ):
                    of_case[name] = value[0]
                described.setdefault(name, _unknown(name, of_case[name]))
            cases.append(case._replace(values=of_case))
        for name in summary:
            described.setdefault(name, Metric(name, name))
        used = {name for case in cases for name in case.values} | set(summary)
        settings = self._settings or {"regions": [], "num_classes": len(self.classes)}
        left_out = _left_out(cases)
        _explain(left_out, described, len(cases))
        content = {
            "format": EVALUATION_FORMAT,
            "run": self.run,
            "protocols": {protocol.name: protocol.to_config() for protocol in self.protocols},
            "classes": self.classes,
            "regions": settings["regions"],
            "metrics": {name: metric.to_json() for name, metric in described.items() if name in used},
            "summary": {name: _to_json(float(value)) for name, value in summary.items()},
            "left_out": left_out,
            "cases": [
                {
                    "case": case.case,
                    **({"subject": case.subject} if case.subject else {}),
                    **({"spacing": list(case.spacing)} if case.spacing else {}),
                    "metrics": {name: _to_json(value) for name, value in case.values.items()},
                }
                for case in cases
            ],
        }
        names: dict[str, Any] = {
            "format": np.array(EVALUATION_FORMAT),
            "settings": np.array(json.dumps(settings)),
            "regions": np.array(settings["regions"], dtype=str),
            "classes": np.array(self.classes, dtype=str),
            "cases": np.array([case.case for case in cases], dtype=str),
            "rows": np.array(settings.get("rows", 0)),
            "lower": np.zeros(0) if self._settings is None else _lower(settings["num_bins"]) / FIXED_POINT,
        }
        names |= {name: np.array([getattr(rest, name) for rest in self._rest]) for name in _Rest._fields}
        for name, array in names.items():
            _write_array(self._zip, name, array)
        content["histograms"] = _checksum(self._zip)
        self._zip.close()
        with atomic_path(self.folder / "calibration.npz") as partial:
            os.replace(self.folder / _PARTIAL, partial)
        write_json(self.folder / "calibration.json", content, indent=None)

    def abort(self) -> None:
        """Give up, and leave nothing."""
        self._zip.close()
        with suppress(OSError):
            (self.folder / _PARTIAL).unlink()

    def __len__(self) -> int:
        return len(self._cases)

    def state(self, case: int) -> dict[str, Any]:
        """Read the case with this number back, in plain values and tensors; before :meth:`close`."""
        kept = self._cases[case]
        table = _read_array(self._zip, f"case_{case}", 1 << 31)
        bins = torch.from_numpy(table.astype(np.float64 if table.dtype.kind == "f" else np.int64))
        rest = {name: torch.from_numpy(value) for name, value in self._rest[case]._asdict().items()}
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in kept.values.items()}
        spacing = None if kept.spacing is None else list(kept.spacing)
        plain = {"case": kept.case, "subject": kept.subject, "spacing": spacing, "values": values}
        return {**plain, "bins": bins, **rest, "settings": dict(self._settings or {})}


def read_evaluated(
    folder: str | os.PathLike[str], error: Callable[[str], Exception] = FileError, advice: str = _ADVICE
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
    if not 0 < len(classes) < _MOST_ROWS:
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
    protocols = {str(name): Protocol.from_config({**data, "name": name}) for name, data in content["protocols"].items()}
    return Evaluated(
        folder=folder,
        run=dict(content["run"]),
        classes=classes,
        protocols=protocols,
        metrics=metrics,
        cases=tuple(cases),
        summary=summary,
        regions=tuple(_text(name, "region") for name in _list(content["regions"], "regions")),
        checksum=content.get("histograms"),
        left_out={str(name): [str(case) for case in _list(of, "left_out")] for name, of in content["left_out"].items()},
    )


class _Rest(NamedTuple):
    """Sums of a case that are no bins, ``(regions, ...)`` each."""

    scores: NDArray[np.float64]
    problems: NDArray[np.int64]
    updates: NDArray[np.int64]

    @classmethod
    def of(cls, histograms: Mapping[str, CalibrationHistogram]) -> _Rest:
        parts = list(histograms.values())
        return cls(
            np.stack([part.sums.scores.cpu().numpy() for part in parts]),
            np.stack([part.sums.problems.cpu().numpy() for part in parts]),
            np.array([part.updates for part in parts]),
        )


class CaseTable(NamedTuple):
    """The histograms of one case, packed: see the head of the module."""

    bins: NDArray[Any]
    rest: _Rest
    settings: dict[str, Any]

    @classmethod
    def pack(cls, histograms: Mapping[str, CalibrationHistogram]) -> CaseTable:
        """Of the same histograms by region, :meth:`unpack` gives the same sums, bit by bit."""
        sums = [histogram.sums.to("cpu") for histogram in histograms.values()]
        first = next(iter(histograms.values()))
        settings = {"regions": list(histograms), "rows": len(sums[0].count), **first.settings()}
        count, hits, soft, confidence = (
            np.stack([getattr(part, name).numpy() for part in sums])
            for name in ("count", "hits", "soft_hits", "confidence")
        )
        place = np.flatnonzero((count != 0) | (hits != 0))
        bins = count.shape[-1]
        units = confidence.ravel()[place] * FIXED_POINT
        whole = units < 2.0**63
        if not (whole.all() and np.array_equal(units.astype(np.int64), units)):  # over 8 billion voxels in a bin
            wide = [
                np.diff(place, prepend=0),
                count.ravel()[place],
                hits.ravel()[place],
                confidence.ravel()[place],
                soft.ravel()[place],
            ]
            return cls(np.stack([line.astype(np.float64) for line in wide]), _Rest.of(histograms), settings)
        count = count.ravel()[place]
        lines = [
            np.diff(place, prepend=0),
            count,
            hits.ravel()[place],
            units.astype(np.int64) - count * _lower(first.num_bins)[place % bins],
        ]
        if soft.any():
            lines.append(soft.ravel()[place])
        table = np.stack(lines)
        small = not table.size or (table.min() >= 0 and table.max() < 2**32)
        return cls(table.astype(np.uint32) if small else table, _Rest.of(histograms), settings)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> CaseTable:
        """The table that :meth:`EvaluatedWriter.state` read back."""
        bins = state["bins"].numpy()
        small = bins.dtype.kind == "i" and (not bins.size or (bins.min() >= 0 and bins.max() < 2**32))
        rest = _Rest(*(state[name].numpy() for name in _Rest._fields))
        return cls(bins.astype(np.uint32) if small else bins, rest, dict(state["settings"]))

    def unpack(self, region: int) -> CalibrationHistogram:
        """The histogram of the region with this number."""
        kept = {name: self.settings[name] for name in self.settings if name not in ("regions", "rows")}
        histogram = CalibrationHistogram(**kept)
        rows, bins = histogram.sums.count.shape
        whole = self.bins.astype(np.int64)
        steps, count, hits, above, *soft = whole
        place = steps.cumsum()
        inside = (place >= region * rows * bins) & (place < (region + 1) * rows * bins)
        here = place[inside] - region * rows * bins

        def spread(values: NDArray[np.int64]) -> torch.Tensor:
            table = np.zeros(rows * bins, np.int64)
            table[here] = values[inside]
            return torch.from_numpy(table.reshape(rows, bins))

        if self.bins.dtype.kind == "f":
            confidence = torch.zeros(rows * bins, dtype=torch.float64)
            confidence[torch.from_numpy(here)] = torch.from_numpy(self.bins[3][inside])
            confidence = confidence.reshape(rows, bins)
        else:
            confidence = spread(count * _lower(histogram.num_bins)[place % bins] + above).double() / FIXED_POINT
        histogram.sums = Sums(
            count=spread(count),
            hits=spread(hits),
            soft_hits=spread(soft[0]) if soft else torch.zeros(rows, bins, dtype=torch.int64),
            confidence=confidence,
            scores=torch.from_numpy(self.rest.scores[region].copy()),
            problems=torch.from_numpy(self.rest.problems[region].copy()),
        )
        histogram.updates = int(self.rest.updates[region])
        return histogram

    def coarse(self, to_coarse: NDArray[np.int64], num_bins: int) -> NDArray[np.float64]:
        """All regions in coarse bins, ``(regions, rows, 3, num_bins)``; ``to_coarse`` has the bin of every fine one."""
        steps, count, hits, above, *soft = self.bins.astype(np.float64)
        row, fine = np.divmod(steps.astype(np.int64).cumsum(), len(to_coarse))
        if self.bins.dtype.kind != "f":
            above = (count * _lower(self.settings["num_bins"])[fine] + above) / FIXED_POINT
        if soft:
            hits = hits + soft[0] / FIXED_POINT
        shape = (len(self.settings["regions"]), self.settings["rows"])
        place, size = row * num_bins + to_coarse[fine], math.prod(shape) * num_bins
        sums = [np.bincount(place, weight, size).reshape(*shape, num_bins) for weight in (count, hits, above)]
        return np.stack(sums, axis=2)


class _Store:
    """``calibration.npz``, read a case at a time; whatever is wrong with it names the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> _Store:
        try:
            self._zip = zipfile.ZipFile(self.path)
            self.settings = json.loads(str(self._small("settings")))
            regions, rows = len(self.settings["regions"]), int(self.settings.get("rows", 0))
            bins = len(fine_edges(self.settings["num_bins"])) - 1 if rows else 0
            if not (0 <= rows <= _MOST_ROWS and regions <= 4096 and rows == len(self._small("classes")) + self._top()):
                raise ValueError(f"{regions} regions with {rows} rows")
            self._most = 8 * 5 * regions * rows * bins + 4096
            self._cases = [str(name) for name in self._small("cases")]
            shapes = {"scores": (2,), "problems": (len(PROBLEMS),), "updates": ()}
            rest = {name: self._small(name) for name in shapes}
            for name, shape in shapes.items():
                if self._cases and rest[name].shape != (len(self._cases), regions, *shape):
                    raise ValueError(f"{name}: shape {rest[name].shape}")
            self._rest = rest
        except Exception as error:
            self.__exit__()
            raise self._damaged(error) from error
        return self

    def __exit__(self, *exception: object) -> None:
        if hasattr(self, "_zip"):
            self._zip.close()

    def expect(self, evaluated: Evaluated) -> None:
        """Raise unless the two files belong together."""
        if self._cases != [case.case for case in evaluated.cases] or self.settings["regions"] != list(
            evaluated.regions
        ):
            raise self._damaged("cases or regions that are not those of the calibration.json beside it")
        if evaluated.checksum != _checksum(self._zip):
            raise self._damaged("histograms of another evaluation than the calibration.json beside it")

    def coarse(self, case: int, num_bins: int) -> NDArray[np.float64]:
        """Voxels, hits and confidence of a case, ``(regions, rows, 3, num_bins)``, without its fine bins in between."""
        to_coarse = coarse_of_fine(self.settings["num_bins"], num_bins).numpy()
        table = self.table(case)
        try:
            return table.coarse(to_coarse, num_bins)
        except Exception as error:
            raise self._damaged(error) from error

    def histogram(self, case: int, region: int) -> CalibrationHistogram:
        table = self.table(case)
        try:
            return table.unpack(region)
        except Exception as error:
            raise self._damaged(error) from error

    def table(self, case: int) -> CaseTable:
        try:
            table = _read_array(self._zip, f"case_{case}", self._most)
            if table.ndim != 2 or table.shape[0] not in (4, 5) or table.dtype.kind not in "uif":
                raise ValueError(f"case_{case}: {table.dtype} {table.shape}")
            rest = _Rest(*(self._rest[name][case] for name in _Rest._fields))
            return CaseTable(table, rest, self.settings)
        except Exception as error:
            raise self._damaged(error) from error

    def _top(self) -> bool:
        return self.settings.get("activation") == "softmax" and bool(self.settings.get("rows"))

    def _small(self, name: str) -> NDArray[Any]:
        return _read_array(self._zip, name, 1 << 28)

    def _damaged(self, reason: object) -> FileError:
        return FileError(f"{self.path}: expected the histograms of an evaluation, got: {reason}. {_ADVICE}")


def _write_array(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def _read_array(archive: zipfile.ZipFile, name: str, most_bytes: int) -> NDArray[Any]:
    """An array of an npz file; its size is known to be right before anything is allocated."""
    info = archive.getinfo(f"{name}.npy")
    if info.file_size > most_bytes:
        raise ValueError(f"{name}: {info.file_size} bytes")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        if version != (1, 0):
            raise ValueError(f"{name}: version {version}")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
        data = member.read()
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{name}: {dtype} {shape} in {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _checksum(archive: zipfile.ZipFile) -> str:
    """Of all members, from their own checksums."""
    text = " ".join(f"{info.filename}:{info.CRC}" for info in sorted(archive.infolist(), key=lambda i: i.filename))
    return f"{zlib.crc32(text.encode()):08x}"


@lru_cache(maxsize=8)
def _lower(num_bins: int) -> NDArray[np.int64]:
    """Lower edges of the fine bins in units of 2^-30."""
    return (fine_edges(num_bins)[:-1].double() * FIXED_POINT).long().numpy()


def _left_out(cases: Sequence[EvaluatedCase]) -> dict[str, list[str]]:
    left_out: dict[str, list[str]] = {}
    for case in cases:
        for name in case.values:
            if math.isnan(case.value(name)):
                left_out.setdefault(name, []).append(case.case)
    return left_out


def _explain(left_out: Mapping[str, Sequence[str]], metrics: Mapping[str, Metric], cases: int) -> None:
    """One line a region and set of cases, however many metrics are without a value for it."""
    reasons: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name, of in left_out.items():
        region = metrics[name].region
        where = f"region {region}, which is empty or holds no label of a class" if region else name
        reasons.setdefault((where, tuple(of)), []).append(name)
    for (where, of), names in reasons.items():
        more = f" and {len(of) - 10} more" if len(of) > 10 else ""
        listed = ", ".join(of[:10]) + more
        _log.warning(
            "nothing to measure in %d of %d cases in %s (%d metrics): %s", len(of), cases, where, len(names), listed
        )


def _unknown(name: str, value: Value) -> Metric:
    if isinstance(value, tuple):
        return Metric(name, name, per="class", classes=tuple(str(i + 1) for i in range(len(value))), label=name)
    return Metric(name, name, label=name)


def _value(value: float | Sequence[float]) -> Value:
    return tuple(float(x) for x in value) if isinstance(value, Sequence) else float(value)


def _mean(values: Sequence[float]) -> float:
    kept = [value for value in values if not math.isnan(value)]
    return math.fsum(kept) / len(kept) if kept else math.nan


def _to_json(value: Value) -> Any:
    if isinstance(value, tuple):
        return [_to_json(x) for x in value]
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")


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
