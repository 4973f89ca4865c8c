"""The report: one self-contained HTML page, with its tables as CSV and LaTeX beside it."""

from __future__ import annotations

import importlib
import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ..version import __version__
from .comparison import Comparison, Measure, Method, compare
from .figures import COLOURS, Figure, class_distribution, distribution, overlap_scatter, p_text, ranking_diagram
from .findings import Findings, findings, pair_cells, reading, tests_csv
from .reliability import overlaid_reliability, read_bins, reliability_of_runs
from .runs import Protocol, read_runs, region_in_words
from .slices import case_views, class_colour
from .tables import ResultTable, figure_text, latex_text, result_csv, result_table

__all__ = ["write_report"]

_EXTRA = ("jinja2", "plotly", "PIL")


@dataclass(frozen=True)
class Section:
    """A protocol in one of its regions: a table for each reduction, figures, and figures and tests to unfold."""

    heading: str
    tables: tuple[ResultTable, ...]
    readings: tuple[list[str], ...]
    figures: tuple[Figure, ...]
    more: tuple[Figure, ...]
    tests: tuple[Findings, ...]


def write_report(runs: Sequence[Path], output: Path) -> Path:
    """Writes one HTML page that compares evaluated runs, and ``<name>_tables/`` with CSV and LaTeX beside it.

    Args:
        runs: run folders, each with ``eval/calibration.json``.
        output: the page; a name without ``.html`` is a folder that gets ``report.html``.

    Returns: the path of the page.
    Raises:
        ModuleNotFoundError: without the extra ``report``.
        RunError: if a run cannot be read; see :func:`monai_calib.report.runs.read_run`.
    """
    _require_extra()
    comparisons = compare(read_runs(runs))
    path = Path(output)
    if path.suffix.lower() not in (".html", ".htm"):
        path = path / "report.html"
    parts = [_part(comparison) for comparison in comparisons]
    page = _render(parts)
    tables = path.parent / f"{path.stem}_tables"
    for number, part in enumerate(parts, start=1):
        prefix = f"comparison{number}_" if len(parts) > 1 else ""
        results = [table for section in part["sections"] for table in section.tables]
        _write(tables / f"{prefix}results.csv", result_csv(results))
        _write(tables / f"{prefix}tests.csv", tests_csv(part["findings"]))
        for table in results:
            name = _safe(f"{prefix}{table.protocol.name}_{table.region}_{table.reduction}")
            _write(tables / f"{name}.tex", latex_text(table))
    _write(path, page)
    return path


def _require_extra() -> None:
    for module in _EXTRA:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"A report needs the package {error.name!r}, which is not installed: pip install monai_calib[report]",
                name=error.name,
            ) from error


def _part(comparison: Comparison) -> dict[str, Any]:
    """What the page says of one comparison."""
    overlap = comparison.overlap_measures()
    overlap_findings = [findings(comparison, measure) for measure in overlap]
    sections = [
        _section(comparison, protocol, region, overlap_findings)
        for protocol in comparison.protocols
        for region in protocol.regions
    ]
    overlap_figures: list[Figure | None] = [distribution(comparison, measure) for measure in overlap]
    overlap_figures += [class_distribution(comparison, measure) for measure in overlap]
    overlap_figures += _rankings(overlap_findings)
    in_sections = [item for section in sections for item in section.tests if item.measure not in overlap]
    return {
        "comparison": comparison,
        "title": _title(comparison),
        "sections": sections,
        "overlap_figures": [figure for figure in overlap_figures if figure is not None] if comparison.methods else [],
        "overlap_tests": overlap_findings,
        "findings": [*overlap_findings, *in_sections],
        "views": case_views(comparison) if comparison.methods else [],
        "swatches": {method.label: _swatch(index) for index, method in enumerate(comparison.methods)},
        "classes": [(name, class_colour(index)) for index, name in enumerate(comparison.class_names) if index > 0],
        "num_subjects": len(set(comparison.subjects)),
    }


def _swatch(index: int) -> str:
    """CSS of a method's square: filled, or open like its symbol past the last colour."""
    colour = COLOURS[index % len(COLOURS)]
    return f"box-shadow: inset 0 0 0 .2em {colour}" if index // len(COLOURS) % 2 else f"background: {colour}"


def _title(comparison: Comparison) -> str:
    bundles = dict.fromkeys(str(run.settings.get("bundle", "runs")) for run in comparison.runs)
    return ", ".join(bundles)


def _section(comparison: Comparison, protocol: Protocol, region: str, overlap_findings: Sequence[Findings]) -> Section:
    tables = tuple(result_table(comparison, protocol, region, reduction) for reduction in protocol.reductions)
    measures = comparison.calibration_measures(protocol, region, protocol.reductions[0])
    tests = [findings(comparison, measure) for measure in measures]
    all_tests = [*overlap_findings, *tests]
    readings = tuple(reading(table, _of_table(comparison, table, all_tests)) for table in tables)
    figures: list[Figure | None] = []
    more: list[Figure | None] = []
    bins = {run: read_bins(run, region, protocol.num_bins or 15) for run in comparison.runs}
    if comparison.methods:
        figures.append(overlaid_reliability(comparison, protocol, region, bins))
        if measures:
            dsc = [measure for measure in comparison.overlap_measures() if measure.kind == "dsc"]
            if dsc:
                figures.append(_scatter(comparison, dsc[0], measures[0]))
            figures.append(distribution(comparison, measures[0]))
            rankings = _rankings(tests)
            figures += rankings[:1]
            more += rankings[1:]
        more += [distribution(comparison, measure) for measure in measures[1:]]
        more += [class_distribution(comparison, measure) for measure in measures]
        more += [
            overlaid_reliability(comparison, protocol, region, bins, index)
            for index in range(len(comparison.class_names))
        ]
    more += reliability_of_runs(comparison, protocol, region, bins)
    return Section(
        f"Protocol {protocol.name}: {region_in_words(region)}",
        tables,
        readings,
        tuple(figure for figure in figures if figure is not None),
        tuple(figure for figure in more if figure is not None),
        tuple(item for item in tests if item.pairs),
    )


def _of_table(comparison: Comparison, table: ResultTable, tests: Sequence[Findings]) -> list[Findings]:
    """The tests of a table's measures; pooled figures have none, since they are not a mean over cases."""
    known = {item.measure: item for item in tests}
    return [known.get(measure) or findings(comparison, measure) for measure in table.measures]


def _scatter(comparison: Comparison, overlap: Measure, measure: Measure) -> Figure:
    estimates = [
        (comparison.estimate(method.runs, overlap), comparison.estimate(method.runs, measure))
        for method in comparison.methods
    ]
    return overlap_scatter(comparison, estimates, measure)


def _rankings(tests: Sequence[Findings]) -> list[Figure]:
    return [
        ranking_diagram(item.ranking, item.measure, range(len(item.ranking.names)))
        for item in tests
        if item.ranking is not None
    ]


def _render(parts: Sequence[dict[str, Any]]) -> str:
    import jinja2
    from plotly.offline import get_plotlyjs

    here = resources.files(__package__)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = figure_text
    environment.filters["p"] = p_text
    template = environment.from_string((here / "page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        parts=parts,
        failures=[_failure(method) for part in parts for method in _all_methods(part["comparison"]) if method.failed],
        version=__version__,
        style=(here / "page.css").read_text(encoding="utf-8"),
        script=(here / "page.js").read_text(encoding="utf-8"),
        # The only markup in a page that could end a script element from inside is its closing tag.
        plotly=get_plotlyjs().replace("</script", "<\\/script"),
        figure_json=_figure_json,
        pair_cells=pair_cells,
        region_in_words=region_in_words,
        safe=_safe,
    )


def _all_methods(comparison: Comparison) -> tuple[Method, ...]:
    return (*comparison.methods, *comparison.failed)


def _failure(method: Method) -> str:
    runs = "; ".join(f"seed {run.seed} never found {', '.join(run.missed_classes())}" for run in method.failed)
    return f"{method.label}: {runs}"


def _figure_json(figure: Figure) -> str:
    """Plot and CSV for a ``<script type="application/json">``, in which nothing may look like markup."""
    text = f'{{"csv": {json.dumps(figure.csv)}, "plot": {figure.plot.to_json()}}}'
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as file:
        try:
            file.write(text)
        except BaseException:
            os.unlink(file.name)
            raise
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
