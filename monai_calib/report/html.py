"""The report: one self-contained HTML page, with its tables as CSV and LaTeX beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from monai_calib.files import atomic_folder, atomic_path, write_text

from .choice import Choice, choose_on_validation, read_choices
from .comparison import Method, compare
from .findings import pair_cells, tests_csv
from .page import render_page, require_extra
from .published import PublishedTable, read_published
from .runs import Run, read_runs
from .sections import Part, part_of
from .shipping import shipped_of
from .sites import Sites, sites_of
from .tables import latex_text, result_csv
from .verdict import Verdict, verdict_of

__all__ = ["write_report"]

# Beyond this many methods only the first case's slices are unfolded.
MOST_UNFOLDED = 8


def write_report(
    runs: Sequence[Path], output: Path, published: Path | None = None, benchmark: Path | None = None
) -> Path:
    """Writes one HTML page that compares evaluated runs, and ``<name>_tables/`` with CSV and LaTeX beside it.

    Args:
        runs: run folders, or folders of runs; see :func:`~.runs.find_evaluations`.
        output: the page; a name without ``.html`` is a folder that gets ``report.html``.
        published: figures of other works to show apart; see :func:`~.published.read_published`.
        benchmark: results.json of the benchmark that made the runs, whose choices on validation are told.

    Returns: the path of the page.
    Raises:
        ModuleNotFoundError: without the extra ``report``.
        RunError: if a run cannot be read; see :func:`~.runs.read_run`.
    """
    require_extra()
    read = read_runs(runs)
    compared, choices = choose_on_validation(read)
    choices += [] if benchmark is None else read_choices(benchmark)
    others = () if published is None else read_published(published)
    comparisons = compare(compared)
    parts = [part_of(comparison) for comparison in comparisons]
    path = Path(output)
    if path.suffix.lower() not in (".html", ".htm"):
        path = path / "report.html"
    page = _render(parts, _verdicts(parts, read, runs, path), choices, others, sites_of(comparisons))
    # Both get their names at the very end, the page first: a reader of either sees one report.
    with atomic_folder(path.parent / f"{path.stem}_tables") as tables, atomic_path(path) as whole:
        for number, part in enumerate(parts, start=1):
            prefix = f"comparison{number}_" if len(parts) > 1 else ""
            write_text(tables / f"{prefix}results.csv", result_csv(part.tables))
            write_text(tables / f"{prefix}tests.csv", tests_csv(part.tests))
            for table in part.tables:
                write_text(tables / f"{_safe(prefix + table.name)}.tex", latex_text(table))
        whole.write_text(page, encoding="utf-8")
    return path


def _verdicts(parts: Sequence[Part], read: Sequence[Run], folders: Sequence[Path], page: Path) -> list[Verdict | None]:
    """The first screen of each part; of one network on several data sets, that of its own alone."""
    titles = [part.title for part in parts]
    away = [bool(part.comparison.runs[0].settings.get("site")) for part in parts]
    verdicts: list[Verdict | None] = []
    for number, part in enumerate(parts):
        if away[number] and not all(away):
            verdicts.append(None)
            continue
        others = [*titles[:number], *titles[number + 1 :]]
        shipped = shipped_of(part.comparison, read, folders, page)
        verdicts.append(verdict_of(part.comparison, shipped, part.tests, others))
    return verdicts


def _render(
    parts: Sequence[Part],
    verdicts: Sequence[Verdict | None],
    choices: Sequence[Choice],
    published: Sequence[PublishedTable],
    sites: Sites | None,
) -> str:
    methods = [method for part in parts for method in (*part.comparison.methods, *part.comparison.failed)]
    return render_page(
        "report.html.j2",
        parts=parts,
        verdicts=verdicts,
        choices=choices,
        published=published,
        sites=sites,
        failures=[_failure(method) for method in methods if method.failed],
        pair_cells=pair_cells,
        safe=_safe,
        most_unfolded=MOST_UNFOLDED,
    )


def _failure(method: Method) -> str:
    runs = "; ".join(f"seed {run.seed} never found {', '.join(run.missed_classes())}" for run in method.failed)
    return f"{method.label}: {runs}"


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)
