"""One page on a calibration: what was fitted, and the figures before and after it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_calib.metrics.serial import array_from_json

from ..files import read_json
from .case_tables import RunError, number
from .changes import case_changes
from .figures import Figure
from .measures import Measure
from .page import render_page, require_extra, write_page
from .protocols import Protocol, read_protocol, region_in_words
from .reliability import curve, reliability_diagram
from .statistics import Interval

__all__ = ["calibration_page"]

FORMAT = "monai_calib/before_after/1"
BEFORE = "before"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """What a method was fitted to, and how that went."""

    method: str
    in_model: bool
    status: str
    message: str
    region: str
    cases: int
    voxels: int
    passes: int
    parameters: str


@dataclass(frozen=True)
class Row:
    """A figure before and, for each method, after: value and mean change of a case with its interval."""

    region: str
    measure: Measure
    reduction: str
    before: float
    after: tuple[tuple[float, Interval], ...]


def calibration_page(output_dir: Path | str) -> Path | None:
    """Writes ``before_after.html`` beside the ``before_after.json`` that :func:`monai_calib.posthoc.calibrate` left.

    The page has reliability diagrams before and after in each region, a table for each protocol, how each case
    changed, and what was fitted with its warnings. Without the extra ``report`` it is left out, and a line in the log
    says so: the JSON and Markdown files hold the same figures.

    Args:
        output_dir: folder of before_after.json.

    Returns: the path of the page, or None without the extra.
    Raises: :class:`~.case_tables.RunError` if the file is missing or incomplete.
    """
    path = Path(output_dir) / "before_after.json"
    try:
        require_extra()
    except ModuleNotFoundError as error:
        _log.warning("No before/after page: %s. The figures are in %s and beside it.", error, path)
        return None
    content = read_json(path, FORMAT, "Calibrate the run again.", RunError)
    try:
        page = _render(content)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        what = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise RunError(f"{path} is not a complete {FORMAT} file: {what}. Calibrate the run again.") from error
    written = path.with_suffix(".html")
    write_page(written, page)
    _log.info("Wrote %s", written)
    return written


def _render(content: Mapping[str, Any]) -> str:
    protocols = [read_protocol(name, fields) for name, fields in content["protocols"].items()]
    methods = list(content["fits"])
    run = content["run"]
    settings = {key: value for key, value in run.items() if value not in (None, {}, "")}
    return render_page(
        "before_after.html.j2",
        title=str(run.get("bundle", "model")),
        settings=settings,
        model=content["model"],
        methods=methods,
        compared_on=content["compared_on"],
        on_fitted_data=content["compared_on"].startswith("validation"),
        num_cases=len(content["cases"]),
        voxels=content["voxels"],
        labels_changed=content["labels_changed"],
        fits=[_fit(name, fields, name == content["method"]) for name, fields in content["fits"].items()],
        tables=[(protocol, _rows(content, protocol, methods)) for protocol in protocols],
        diagrams=_diagrams(content, protocols),
        changes=[
            figure for measure in _kinds(protocols) for figure in case_changes(content["cases"], measure, protocols)
        ],
        region_in_words=region_in_words,
    )


def _kinds(protocols: list[Protocol]) -> list[str]:
    return list(dict.fromkeys(measure for protocol in protocols for measure in protocol.measures))


def _fit(name: str, fields: Mapping[str, Any], in_model: bool) -> Fit:
    record = fields["fit"]
    return Fit(
        name,
        in_model,
        record["status"],
        record["message"],
        record["region"],
        int(record["cases"]),
        int(record["voxels"]),
        int(record["passes"]),
        _in_words(fields["state"], fields["settings"]),
    )


def _in_words(state: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The fitted numbers, as far as there are few."""
    if "knots" in settings and "weight" in state:
        rows = zip(state["weight"], state["bias"], strict=True)
        return "by mm from the predicted boundary: " + "; ".join(
            f"class {k} times {_by_distance(settings['knots'], weight)} plus {_by_distance(settings['knots'], bias)}"
            for k, (weight, bias) in enumerate(rows)
        )
    if "weight" in state and "bias" in state:
        weight, bias = np.array(state["weight"]), np.array(state["bias"])
        diagonal = np.diagonal(weight)
        if np.array_equal(weight, np.diag(diagonal)) and not bias.any() and diagonal.all():
            temperatures = np.unique(1.0 / diagonal) if len(np.unique(diagonal)) == 1 else 1.0 / diagonal
            return f"temperature {_listed(temperatures)}"
        if np.array_equal(weight, np.diag(diagonal)):
            return f"logits times {_listed(diagonal)}, plus {_listed(bias)}"
        return f"weights {'; '.join(_listed(row) for row in weight)}; intercepts {_listed(bias)}"
    if "beta" in state:
        return "factor by mm from the predicted boundary: " + _by_distance(settings["knots"], state["beta"])
    return f"{sum(np.size(values) for values in state.values())} numbers"


def _by_distance(knots: Sequence[float], values: Sequence[float]) -> str:
    return ", ".join(f"{knot:g}: {value:.3g}" for knot, value in zip(knots, values, strict=True))


def _listed(values: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _rows(content: Mapping[str, Any], protocol: Protocol, methods: list[str]) -> list[Row]:
    summary, change = content["summary"], content["change"]
    rows = []
    for region in protocol.regions:
        for kind in protocol.measures:
            for stem in (f"{kind}_{region}_{protocol.num_bins}bins", f"{kind}_{region}"):
                for reduction in protocol.reductions:
                    key = f"{stem}_{reduction}"
                    if key in summary[BEFORE]:
                        measure = Measure(kind, stem, key, protocol, region, reduction)
                        after = [(number(summary[m][key]), _change(change[m][stem], reduction)) for m in methods]
                        rows.append(Row(region, measure, reduction, number(summary[BEFORE][key]), tuple(after)))
    return rows


def _change(bounds: list[float | None], reduction: str) -> Interval:
    """Of the mean over cases; there is none for pooled figures."""
    if reduction == "micro":
        return Interval(math.nan, math.nan, math.nan)
    return Interval(*(number(bound) for bound in bounds))


def _diagrams(content: Mapping[str, Any], protocols: list[Protocol]) -> list[Figure]:
    """Before and after in each region; none in files that hold no bins."""
    saved = content.get("bins", {})
    regions = dict.fromkeys(region for protocol in protocols for region in protocol.regions)
    # A case stands for itself: calibration does not know whose it is.
    cases = list(content["cases"])
    figures = []
    for region in regions:
        named = []
        for index, (method, tables) in enumerate(saved.items()):
            place = (7, 0) if method == BEFORE else (index - 1 if index < 8 else index, 0)
            named.append((method, place, curve(array_from_json(tables[region]), cases)))
        if named:
            title = f"Reliability before and after, {region_in_words(region)}"
            figures.append(reliability_diagram(f"reliability-{region}", title, named, drawn="cases"))
    return figures
