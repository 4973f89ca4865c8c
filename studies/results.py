"""Bring the figures of a comparison into results.json and the tables of results.md.

    python studies/results.py RUNS... --precision float32   # read the runs below these folders, then write the page
    python studies/results.py                               # write the page from results.json

Runs are compared where dimension, epochs, augmentation and the precision of training agree, which no run records: a
part that is named replaces the one that was kept, the others stay. A row is a method: runs that differ in the seed
alone. Its figures are means over seeds and cases, with 95 % bootstrap intervals over subjects, all seeds of a drawn
subject together. Every number of the tables is in results.json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pages import cell, table, write_json, write_page

from monai_calib.metrics import CalibrationHistogram, ace, mce
from monai_calib.metrics.bootstrap import bootstrap_ratio
from monai_calib.metrics.evaluated import read_evaluated
from monai_calib.report.comparison import Comparison, compare
from monai_calib.report.published import read_published
from monai_calib.report.runs import Run, read_runs
from monai_calib.report.statistics import CONFIDENCE, bootstrap_mean, friedman_nemenyi, holm, paired_tests

FIGURES = Path(__file__).with_name("results.json")
PUBLISHED = Path(__file__).with_name("published.json")


class Column(NamedTuple):
    heading: str
    decimals: int
    best: str = "low"  # or "high", or "zero": closest to it


COLUMNS = {
    "dsc": Column("DSC", 3, "high"),
    "hd95_mm": Column("HD95 mm", 2),
    "ece_foreground_15bins": Column("ECE foreground", 3),
    "ece_predicted_15bins": Column("ECE predicted", 3),
    "ece_boundary2mm_15bins": Column("ECE 2 mm band", 3),
    "ece_all_15bins": Column("ECE all", 4),
    "nll_all": Column("NLL all", 4),
    "brier_all": Column("Brier all", 4),
    "gap_boundary2mm": Column("confidence − accuracy, band", 3, "zero"),
    "nll_boundary2mm": Column("NLL band", 3),
    "brier_boundary2mm": Column("Brier band", 3),
    "monai_ace": Column("ACE, MONAI's protocol", 3),
    "monai_ace_floor": Column("its floor", 3),
    "monai_mce": Column("MCE, MONAI's protocol", 3),
    "expected_volume_error": Column("expected volume's error", 3),
    "argmax_volume_error": Column("argmax volume's error", 3),
}
"""Figures of a case; all are averaged over cases (macro)."""
RATERS = {
    "dice_raters": Column("DSC, each rater", 3, "high"),
    "rater_ece_all_15bins": Column("ECE all, each rater", 4),
    "ece_dissensus_15bins": Column("ECE, disputed", 3),
    "nll_dissensus": Column("NLL, disputed", 3),
    "volume_crps": Column("CRPS of the volume", 3),
}
"""Figures of a case that several raters labelled."""

MAIN = "overlap and calibration"
TABLES = {
    MAIN: list(COLUMNS)[:8],
    "more": list(COLUMNS)[8:],
}
RANKED = ("dsc", "ece_foreground_15bins", "ece_boundary2mm_15bins", "ece_all_15bins", "nll_all")
IDENTITY = ("bundle", "loss_name", "loss_args", "network_name", "split")
AGAINST = ("dice_ce", "ce")
"""Methods the others are compared with, subject by subject."""


def case_values(run: Run) -> dict[str, NDArray[np.float64]]:
    """What a run's table does not hold, read from its histograms: a value a case."""
    evaluated = read_evaluated(run.evaluation)
    near = "boundary2mm" if "boundary2mm" in evaluated.regions else "boundary2vx"
    whole, band = list(evaluated.histograms("all")), list(evaluated.histograms(near))
    foreground = range(1, len(run.class_names))
    return {
        # Mean confidence minus accuracy: above 0 over-confident, below 0 under-confident.
        "gap_boundary2mm": np.array([float(each.bins().share_of_gap().sum()) for each in band]),
        # 20 bins, classes without the background, mean over classes: MONAI's CalibrationErrorMetric.
        "monai_ace": np.array([statistics.fmean(ace(each, 20, k) for k in foreground) for each in whole]),
        "monai_ace_floor": np.array([statistics.fmean(floor(each, k) for k in foreground) for each in whole]),
        "monai_mce": np.array([statistics.fmean(mce(each, 20, k) for k in foreground) for each in whole]),
    }


def floor(histogram: CalibrationHistogram, class_index: int) -> float:
    """The ACE in 20 bins that a perfect forecaster would score if voxels were independent: the mean over occupied bins
    of E|accuracy - p| of n draws, ``sqrt(2 p (1 - p) / (pi n))``."""
    bins = histogram.bins(20, class_index)
    count = bins.count[bins.count > 0].double()
    p = bins.confidence[bins.count > 0] / count
    return float((2 / math.pi * p * (1 - p) / count).clamp_min(0).sqrt().mean())


def in_pixels(name: str) -> str:
    """The name of a column of data without lengths: ``hd95_mm`` is ``hd95_px``, a band of 2 mm one of 2 voxels."""
    return name.replace("2mm", "2vx").replace("_mm", "_px")


def kept_runs(folder: Path) -> tuple[dict[str, Any], Run]:
    """Every test run of a comparison, as :func:`runs_of` keeps it; and one of them, for what all share.

    Raises: ``ValueError`` for runs that are measured on other cases or by other protocols than others.
    """
    found = [run for run in read_runs([folder]) if run.split == "test"]
    (comparison,) = compare(found)
    return runs_of(comparison), found[0]


def runs_of(comparison: Comparison) -> dict[str, Any]:
    """What is kept of every run of a comparison: what it is, and each column's value of each case."""
    kept = []
    for method in (*comparison.methods, *comparison.failed):
        for run in method.runs:
            position = {case: number for number, case in enumerate(run.cases)}
            order = [position[case] for case in comparison.cases]
            values = {**run.values, "dsc": run.values["mean_dice"], **case_values(run)}
            columns = {name: values[name if name in values else in_pixels(name)][order] for name in COLUMNS}
            columns |= {name: values[name][order] for name in RATERS if name in values}
            kept.append({**_kept(run), "values": {name: _rounded(column) for name, column in columns.items()}})
        kept += [_kept(run) for run in method.failed]
    return {"cases": list(comparison.cases), "subjects": list(comparison.subjects), "runs": kept}


def _kept(run: Run) -> dict[str, Any]:
    """What tells a run from others; one that missed a class has no values."""
    return {
        **{name: run.settings[name] for name in IDENTITY},
        "posthoc": run.settings.get("posthoc") or "",
        "seed": run.settings["seed"],
        "train_seconds": round(run.train_seconds),
    }


def merged(kept: Mapping[str, Any] | None, added: Mapping[str, Any]) -> dict[str, Any]:
    """Runs kept before and runs added; an added one replaces what was kept of the same method and seed.

    Raises:
        ValueError: for runs of other cases.
    """
    kept = kept or {**added, "runs": []}
    if (kept["cases"], kept["subjects"]) != (added["cases"], added["subjects"]):
        raise ValueError("The runs kept and those to be added are of different cases. Name another part.")
    runs = {(*_method_of(run), run["seed"]): run for run in (*kept["runs"], *added["runs"])}
    return {**kept, "runs": [runs[key] for key in sorted(runs)]}


def _method_of(run: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(json.dumps(run[name]) for name in (*IDENTITY, "posthoc"))


def name_of(method: Mapping[str, Any]) -> str:
    arguments = ", ".join(
        f"{key}={value if isinstance(value, str) else format(value, 'g')}" for key, value in method["loss_args"].items()
    )
    text = f"`{method['loss_name']}`" + (f" {arguments}" if arguments else "")
    return f"{text} → {method['posthoc']}" if method["posthoc"] else text


def part_of(settings: Mapping[str, Any], precision: str = "") -> str:
    """The part of the page a run belongs to: ``3D, 40 epochs, augmented, float32``."""
    augmented = ", augmented" if settings.get("augmentation") else ""
    dimension = settings["bundle"].rpartition("_")[2].upper()
    return f"{dimension}, {settings['epochs']} epochs{augmented}" + (f", {precision}" if precision else "")


def _rounded(values: Iterable[float]) -> list[float | None]:
    """Five decimals; None for what is not defined."""
    return [round(float(value), 5) if math.isfinite(value) else None for value in values]


def figures_of(kept: Mapping[str, Any], corrected: bool = False, against: Sequence[str] = AGAINST) -> dict[str, Any]:
    """Figures of the runs of one part, and changes against losses; ``corrected``: also against these corrected."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for run in kept["runs"]:
        groups.setdefault(_method_of(run), []).append(run)
    subjects: list[str] = kept["subjects"]
    tabled, methods = [], []
    for runs in groups.values():
        whole = [run for run in runs if "values" in run]
        if not whole:
            continue
        known = [name for name in (*COLUMNS, *RATERS) if name in whole[0]["values"]]
        values_of = {name: np.array([run["values"][name] for run in whole], dtype=float) for name in known}
        methods.append(
            {
                **{name: runs[0][name] for name in (*IDENTITY, "posthoc")},
                "seeds": [run["seed"] for run in whole],
                "seeds_that_missed_a_class": [run["seed"] for run in runs if "values" not in run],
                "train_seconds": [run["train_seconds"] for run in whole],
                "figures": {
                    name: _rounded(bootstrap_mean(values.mean(0), subjects)) for name, values in values_of.items()
                },
                "by_seed": {name: _rounded(np.nanmean(values, axis=1)) for name, values in values_of.items()},
            }
        )
        tabled.append(values_of)
    return {
        "cases": len(kept["cases"]),
        "subjects": len(set(subjects)),
        "methods": methods,
        "changes": _changes(subjects, methods, tabled, corrected, against),
        "ranks": _ranks(subjects, methods, tabled),
    }


def _changes(
    subjects: Sequence[str],
    methods: list[dict[str, Any]],
    tabled: list[dict[str, NDArray[np.float64]]],
    corrected: bool,
    against: Sequence[str],
) -> list[dict[str, Any]]:
    """Relative change of each method's means against a loss with its defaults, on the seeds both have, and the p of
    Wilcoxon's test over subjects, not yet corrected."""
    changes = []
    for base, base_table in zip(methods, tabled, strict=True):
        if base["loss_name"] not in against or base["loss_args"] or (base["posthoc"] and not corrected):
            continue
        for method, own_table in zip(methods, tabled, strict=True):
            common = [seed for seed in method["seeds"] if seed in base["seeds"]]
            if method is base or not common:
                continue
            own, other = ([each["seeds"].index(seed) for seed in common] for each in (method, base))
            figures, p_values = {}, {}
            for name, column in COLUMNS.items():
                top, bottom = own_table[name][own].mean(0), base_table[name][other].mean(0)
                both = np.isfinite(top) & np.isfinite(bottom)
                known = [subject for subject, kept in zip(subjects, both, strict=True) if kept]
                if column.best != "zero":
                    ratio = bootstrap_ratio(top[both], bottom[both], known)
                    figures[name] = _rounded([float(part) - 1 for part in ratio])
                    (test,) = paired_tests({"own": top, "other": bottom}, subjects)
                    p_values[name] = _rounded([test.p_value])[0]
            told = {"method": name_of(method), "against": name_of(base), "seeds": common}
            changes.append({**told, "figures": figures, "p": p_values})
    return changes


def _ranks(
    subjects: Sequence[str], methods: list[dict[str, Any]], tabled: list[dict[str, NDArray[np.float64]]]
) -> dict[str, Any]:
    """Friedman's mean ranks of the networks as trained, with Nemenyi's critical difference: of those with most seeds,
    since a mean over seeds and a single one are not alike."""
    most = max(len(method["seeds"]) for method in methods)
    chosen = [n for n, method in enumerate(methods) if not method["posthoc"] and len(method["seeds"]) == most]
    ranks = {}
    for name in RANKED if len(chosen) > 2 else ():
        values = {name_of(methods[number]): tabled[number][name].mean(0) for number in chosen}
        ranking = friedman_nemenyi(values, subjects, COLUMNS[name].best == "low")
        ranks[name] = {
            "mean_ranks": dict(zip(ranking.names, _rounded(ranking.mean_ranks), strict=True)),
            "critical_difference": round(ranking.critical_difference, 3),
        }
    return ranks


def figure_table(part: Mapping[str, Any], columns: Sequence[str]) -> str:
    """A Markdown table, a row a method, the best mean of each column in bold."""
    methods = part["methods"]
    shown = {name: (COLUMNS | RATERS)[name] for name in columns}
    heading = ["loss", "seeds", *(column.heading for column in shown.values())]
    distance = {"low": lambda value: value, "high": lambda value: -value, "zero": abs}
    best = {
        name: min((method["figures"][name][0] for method in methods), key=distance[column.best])
        for name, column in shown.items()
    }
    rows = []
    for method in methods:
        missed = method["seeds_that_missed_a_class"]
        seeds = str(len(method["seeds"])) + (f" ({len(missed)} more missed a class)" if missed else "")
        cells = [name_of(method), seeds]
        figures = method["figures"]
        cells += [cell(figures[name], of.decimals, figures[name][0] == best[name]) for name, of in shown.items()]
        rows.append(cells)
    return table(heading, rows)


def change_table(part: Mapping[str, Any], against: str, columns: Sequence[str]) -> str:
    """Relative change against one method, in per cent; a star where p, corrected for all rows (Holm), is below 0.05."""
    changes = [change for change in part["changes"] if change["against"] == against]
    p_values = {
        name: holm([math.nan if (p := change.get("p", {}).get(name)) is None else p for change in changes])
        for name in columns
    }
    rows = []
    for place, change in enumerate(changes):
        cells = [change["method"], str(len(change["seeds"]))]
        for name in columns:
            value, low, high = (f"{100 * number:+.0f}" for number in change["figures"][name])
            star = "\\*" if p_values[name][place] < 1 - CONFIDENCE else ""
            cells.append(f"{value}{star} <small>{low} … {high}</small>")
        rows.append(cells)
    return table(["loss", "seeds", *(COLUMNS[name].heading for name in columns)], rows)


def seed_table(part: Mapping[str, Any], columns: Sequence[str]) -> str:
    """Lowest and highest seed of each method, and what its trainings took."""
    rows = []
    for method in part["methods"]:
        if len(method["seeds"]) > 1 and not method["posthoc"]:
            cells = [name_of(method)]
            for name in columns:
                decimals = COLUMNS[name].decimals
                values = method["by_seed"][name]
                cells.append(f"{min(values):.{decimals}f}–{max(values):.{decimals}f}")
            seconds = method["train_seconds"]
            rows.append([*cells, f"{min(seconds)}–{max(seconds)}"])
    return table(["loss", *(COLUMNS[name].heading for name in columns), "training, s"], rows)


def rank_table(part: Mapping[str, Any]) -> str:
    ranks = part["ranks"]
    names = list(next(iter(ranks.values()))["mean_ranks"])
    rows = [[name, *(f"{each['mean_ranks'][name]:.2f}" for each in ranks.values())] for name in names]
    rows.append(["*critical difference*", *(f"{each['critical_difference']:.2f}" for each in ranks.values())])
    return table(["loss", *(COLUMNS[name].heading for name in ranks)], rows)


def published_tables() -> str:
    parts = []
    for found in read_published(PUBLISHED):
        rows = [["" if value is None else str(value) for value in row] for row in found.rows]
        parts.append(f"**{found.title}** ({found.source}). {found.note}\n\n{table(found.columns, rows)}")
    return "\n\n".join(parts)


def tables(parts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """All tables of the page by name; a part has no table that would have no row."""
    made = {"published": published_tables()}
    for part in parts:
        of = f", {part['part']}"
        made |= {kind + of: figure_table(part, columns) for kind, columns in TABLES.items()}
        for base in AGAINST:
            if any(change["against"] == f"`{base}`" for change in part["changes"]):
                made[f"change against {base}{of}"] = change_table(part, f"`{base}`", TABLES[MAIN])
        made["seeds" + of] = seed_table(part, TABLES[MAIN])
        if part["ranks"]:
            made["ranks" + of] = rank_table(part)
    return made


def by_how_much(path: str, side: str, own: float, other: float) -> float:
    """By how many per cent a figure is ``below`` or ``above`` another; ``less`` or ``more``: by how many hundredths.

    Raises: ``ValueError`` where it is on the other side, so that no sentence says the contrary of its number.
    """
    if (own > other) != {"below": False, "less": False, "above": True, "more": True}[side]:
        raise ValueError(f"{path}: {own:.4g} against {other:.4g}")
    return 100 * abs(own - other) / (other if side in ("below", "above") else 1)


def figure(parts: Sequence[Mapping[str, Any]], path: str) -> float:
    """``part | loss | figures | name`` for a mean, ``lowest`` or ``highest`` instead for that of its seeds, and
    ``part | loss | below LOSS | name``, or ``above``, for a change in per cent: :func:`by_how_much`."""
    title, loss, kind, name = path.split(" | ")
    part = next(part for part in parts if part["part"] == title)
    if kind in ("figures", "lowest", "highest"):
        method = next(method for method in part["methods"] if name_of(method) == loss)
        mean, seeds = method["figures"][name][0], method["by_seed"][name]
        return float({"figures": mean, "lowest": min(seeds), "highest": max(seeds)}[kind])
    side, against = kind.split(" ", 1)
    change = next(c for c in part["changes"] if (c["method"], c["against"]) == (loss, against))
    return by_how_much(path, side, 1 + float(change["figures"][name][0]), 1)


def comparisons_of(runs: Iterable[Run]) -> list[Comparison]:
    """One for each part of the page."""
    parts: dict[str, list[Run]] = {}
    for run in runs:
        parts.setdefault(part_of(run.settings), []).append(run)
    return [comparison for members in parts.values() for comparison in compare(members)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Bring the figures of a comparison into results.json and its page.")
    parser.add_argument("folders", nargs="*", type=Path, metavar="RUNS")
    parser.add_argument("--precision", default="", help="of training, as the page names it: float32")
    asked = parser.parse_args()
    if asked.folders:
        runs = [run for run in read_runs(asked.folders) if run.split == "test"]
        parts = {part["part"]: part for part in json.loads(FIGURES.read_text(encoding="utf-8"))}
        for comparison in comparisons_of(runs):
            name = part_of(comparison.methods[0].runs[0].settings, asked.precision)
            parts[name] = {"part": name, **figures_of(runs_of(comparison))}
        write_json(FIGURES, list(parts.values()), depth=3)
    write_page("results")


if __name__ == "__main__":
    main()
