"""The file ``calibration.json``: figures, histograms and what was left out of one evaluation."""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_calib.handlers.case_metric import mean_without_nan
from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.protocols import Protocol

__all__ = ["CALIBRATION_FORMAT", "write_calibration_file"]

CALIBRATION_FORMAT = "monai_calib/calibration/1"
_log = logging.getLogger(__name__)

CaseRow = tuple[str, dict[str, list[float]]]


def write_calibration_file(
    path: Path,
    run: Mapping[str, Any],
    class_names: Sequence[str],
    protocols: Sequence[Protocol],
    summary: Mapping[str, float],
    pooled: Mapping[str, CalibrationHistogram],
    rows: Sequence[CaseRow],
    histograms: Sequence[Mapping[str, Any]],
    subjects: Sequence[str],
) -> None:
    """Write everything a report needs, in one step: the file is there in full or not at all.

    Args:
        path: the file; its folder is made.
        run: plain values that say what was evaluated.
        class_names: one a channel.
        protocols: what was measured.
        summary: reported figures over all cases; NaN becomes null.
        pooled: a region's histogram over all cases.
        rows: a case's name and its rows: one value a figure becomes a number, several a list, NaN null.
        histograms: a case's histograms in their JSON form, by region.
        subjects: whom a case was taken from, "" where the datalist does not say; an id, nothing more.
    """
    content = {
        "format": CALIBRATION_FORMAT,
        "run": dict(run),
        "num_classes": len(class_names),
        "class_names": list(class_names),
        "protocols": {protocol.name: protocol.to_json() for protocol in protocols},
        "summary": {name: _null_if_nan(value) for name, value in summary.items()},
        "left_out": _left_out(rows),
        "pooled": {name: histogram.to_json() for name, histogram in pooled.items()},
        "cases": [
            {"case": case}
            | ({"subject": subject} if subject else {})
            | {"metrics": {name: _plain(row) for name, row in figures.items()}, "histograms": dict(parts)}
            for (case, figures), parts, subject in zip(rows, histograms, subjects, strict=True)
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as file:
        try:
            file.write(json.dumps(content, allow_nan=False))  # json.dump would not use the compiled encoder
        except BaseException:
            os.unlink(file.name)
            raise
    os.chmod(file.name, 0o644)  # a temporary file is private, a report is not
    os.replace(file.name, path)


def _left_out(rows: Sequence[CaseRow]) -> dict[str, list[str]]:
    """The cases that have no figure, by figure; the log names them, and cases that were measured twice."""
    left_out = {}
    for figure in rows[0][1] if rows else ():
        cases = [case for case, row in rows if math.isnan(mean_without_nan(row[figure]))]
        if cases:
            left_out[figure] = cases
            _log.warning("%s: nothing to measure in %d of %d cases: %s", figure, len(cases), len(rows), cases)
    twice = [case for case, times in Counter(case for case, _ in rows).items() if times > 1]
    if twice:
        _log.warning(
            "measured more than once: %s. A sampler that pads uneven ranks repeats cases (use "
            "monai.data.DistributedSampler with even_divisible=False), or files in two folders bear the same name.",
            twice,
        )
    return left_out


def _plain(row: Sequence[float]) -> float | list[float | None] | None:
    values = [_null_if_nan(value) for value in row]
    return values[0] if len(values) == 1 else values


def _null_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
