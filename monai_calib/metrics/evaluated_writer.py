"""Write an evaluated folder, case by case; see :mod:`.evaluated`."""

from __future__ import annotations

import ctypes
import json
import logging
import math
import os
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from monai_calib.files import atomic_path, write_json
from monai_calib.metrics.case_table import CaseTable, Rest, checksum, lower_edges, read_array, write_array
from monai_calib.metrics.evaluated import EVALUATION_FORMAT, EvaluatedCase, Value
from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.metric import Metric
from monai_calib.metrics.protocols import Protocol
from monai_calib.metrics.sums import FIXED_POINT
from monai_calib.words import counted

__all__ = ["EvaluatedWriter"]

_log = logging.getLogger(__name__)
_PARTIAL = ".calibration.npz.partial"
_TRIM_EVERY = 32  # cases
Layout = tuple[tuple[str, int | None], ...]
"""Names of the values of a case in their order, with the number of values a name, ``None`` for a plain number."""


class _KeptCase(NamedTuple):
    """A case while others are measured: its numbers in one array, their names shared by all cases that have the same.

    As numbers of Python, each with its place in a tuple, they would take four times the memory.
    """

    case: str
    subject: str
    spacing: tuple[float, ...] | None
    layout: Layout
    numbers: NDArray[np.float64]

    def unpacked(self) -> EvaluatedCase:
        numbers = self.numbers.tolist()
        values: dict[str, Value] = {}
        place = 0
        for name, width in self.layout:
            values[name] = numbers[place] if width is None else tuple(numbers[place : place + width])
            place += 1 if width is None else width
        return EvaluatedCase(self.case, self.subject, self.spacing, values)


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
        >>> from monai_calib.metrics.evaluated import read_evaluated
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
        self._cases: list[_KeptCase] = []
        self._layouts: dict[Layout, Layout] = {}
        self._seen: Counter[str] = Counter()
        self._rest: list[Rest] = []
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
        write_array(self._zip, f"case_{len(self._cases)}", table.bins)
        self._rest.append(table.rest)
        layout = tuple((name, len(value) if isinstance(value, Sequence) else None) for name, value in values.items())
        numbers = np.array([x for v in values.values() for x in (v if isinstance(v, Sequence) else (v,))], np.float64)
        self._seen[case] += 1
        if self._seen[case] > 1:
            _log.warning(
                "case %s was measured more than once. A sampler that pads uneven ranks repeats cases (use "
                "monai.data.DistributedSampler with even_divisible=False), or two cases bear the same name.",
                case,
            )
            case = f"{case} ({self._seen[case]})"
        shared = self._layouts.setdefault(layout, layout)
        self._cases.append(_KeptCase(case, subject, None if spacing is None else tuple(spacing), shared, numbers))
        if len(self._cases) % _TRIM_EVERY == 0:
            _give_memory_back()

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
                wanted = counted(len(self._cases), "value")
                raise ValueError(f"metric {name!r}: expected {wanted}, one a case, got {len(column)}")
        described = self.metrics | {metric.name: metric for metric in metrics}
        cases = []
        for i, case in enumerate(kept.unpacked() for kept in self._cases):
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
            "lower": np.zeros(0) if self._settings is None else lower_edges(settings["num_bins"]) / FIXED_POINT,
        }
        names |= {name: np.array([getattr(rest, name) for rest in self._rest]) for name in Rest._fields}
        for name, array in names.items():
            write_array(self._zip, name, array)
        content["histograms"] = checksum(self._zip)
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
        kept = self._cases[case].unpacked()
        table = read_array(self._zip, f"case_{case}", 1 << 31)
        bins = torch.from_numpy(table.astype(np.float64 if table.dtype.kind == "f" else np.int64))
        rest = {name: torch.from_numpy(value) for name, value in self._rest[case]._asdict().items()}
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in kept.values.items()}
        spacing = None if kept.spacing is None else list(kept.spacing)
        plain = {"case": kept.case, "subject": kept.subject, "spacing": spacing, "values": values}
        return {**plain, "bins": bins, **rest, "settings": dict(self._settings or {})}


def _give_memory_back() -> None:
    """Ask glibc for the free pages between its blocks, of which it else keeps up to megabytes a case; others do so."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


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
        without = counted(len(names), "metric")
        _log.warning(
            "nothing to measure in %d of %s in %s (%s): %s", len(of), counted(cases, "case"), where, without, listed
        )


def _unknown(name: str, value: Value) -> Metric:
    if isinstance(value, tuple):
        return Metric(name, name, per="class", classes=tuple(str(i + 1) for i in range(len(value))), label=name)
    return Metric(name, name, label=name)


def _value(value: float | Sequence[float]) -> Value:
    return tuple(float(x) for x in value) if isinstance(value, Sequence) else float(value)


def _to_json(value: Value) -> Any:
    if isinstance(value, tuple):
        return [_to_json(x) for x in value]
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")
