"""What the losses do on ACDC, where the papers measured them, in 2D and in 3D.

    python studies/acdc.py "NAME=OUT/runs" ...   # read the comparisons, keep their runs, write page and figure
    python studies/acdc.py                       # write page and figure from acdc.json

Runs are kept, and added to, as :mod:`parts` says. Of the first training in 2D the means alone were kept.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import parts as shared
import results
from pages import shown, table, write_page
from parts import COLUMNS, draw, read_parts
from results import COLUMNS as HEADINGS
from results import PUBLISHED, by_how_much, name_of
from scipy.stats import spearmanr

from monai_calib.report.published import read_published

FIGURES = Path(__file__).with_suffix(".json")
PICTURE = FIGURES.with_name("figures") / "acdc.svg"
FLAT = "heart, 2D, 30 epochs"
"""The part whose losses were trained several times; the first training has a part of its own."""
FIRST = f"{FLAT}, first training"
"""Of seed 0 the means alone were kept."""


def figure(parts: Sequence[Mapping[str, Any]], path: str) -> float:
    """As :func:`results.figure`, of one part. Over all trainings in 2D: ``trainings | LOSS | mean | NAME``; against
    another loss ``trainings | LOSS | below OTHER | NAME``, or another word of :func:`by_how_much`; and ``trainings |
    order | KIND | NAME``, the :func:`rank_correlation` of two trainings, KIND ``as trained`` or ``corrected``."""
    title, loss, kind, name = path.split(" | ")
    if title != "trainings":
        return results.figure(parts, path)
    found = by_training(parts)[name]
    if loss == "order":
        return rank_correlation(found, kind == "corrected")
    if kind == "mean":
        return statistics.fmean(found[loss].values())
    side, against = kind.split(" ", 1)
    common = found[loss].keys() & found[against].keys()
    own, other = (statistics.fmean(found[each][seed] for seed in common) for each in (loss, against))
    return by_how_much(path, side, own, other)


def published(data: str) -> str:
    """What its authors reported on a data set, a row a loss."""
    (found,) = (each for each in read_published(PUBLISHED) if each.title.startswith("2D U-Net"))
    place = found.columns.index(data)
    rows = [[str(row[0]), *str(row[place]).split(" / ")] for row in found.rows]
    return f"{table(['loss', 'DSC', 'ECE foreground'], rows)}\n\n{found.source}."


def tables(parts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """All tables of the page by name."""
    made = shared.tables([part for part in parts if part["part"] != FIRST])
    made.pop(f"seeds, {FLAT}", None)  # the table of trainings holds them
    return made | {"published": published("ACDC"), "trainings": trainings_table(parts)}


def by_training(parts: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[int, float]]]:
    """Means of each seed of each method in 2D, by column and method."""
    found: dict[str, dict[str, dict[int, float]]] = {name: {} for name in COLUMNS}
    for part in parts:
        for method in part["methods"] if part["part"] in (FIRST, FLAT) else ():
            for name, of in found.items():
                of.setdefault(name_of(method), {}).update(zip(method["seeds"], method["by_seed"][name], strict=True))
    return found


def drawn(parts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The parts of the figure: in 2D with means over all trainings."""
    found = by_training(parts)

    def averaged(method: Mapping[str, Any]) -> dict[str, Any]:
        means = {name: [statistics.fmean(of[name_of(method)].values())] for name, of in found.items()}
        return {**method, "figures": means}

    return [
        {**part, "methods": [averaged(method) for method in part["methods"]]} if part["part"] == FLAT else part
        for part in parts
        if part["part"] != FIRST
    ]


def rank_correlation(values: Mapping[str, Mapping[int, float]], corrected: bool) -> float:
    """Spearman's, of the order of losses in two trainings: the mean over the pairs of trainings."""
    rows = [of for name, of in values.items() if ("→" in name) == corrected]
    found = []
    for first, second in itertools.combinations(sorted(set().union(*rows)), 2):
        pairs = [(of[first], of[second]) for of in rows if {first, second} <= of.keys()]
        if len(pairs) > 2:
            found.append(float(spearmanr(*zip(*pairs, strict=True)).statistic))
    return statistics.fmean(found)


def trainings_table(parts: Sequence[Mapping[str, Any]]) -> str:
    """A row a loss: its mean over trainings and each of them, as trained, and its corrected NLL; below, how alike the
    orders of the losses in two trainings are."""
    found = by_training(parts)
    columns = [(name, "") for name in COLUMNS[:5]] + [("nll_all", " → auto")]
    rows = []
    for loss in sorted({name for name in found["dsc"] if "→" not in name}):
        cells = []
        for name, kind in columns:
            of, decimals = found[name][loss + kind], HEADINGS[name].decimals
            each = ", ".join(shown(of[seed], decimals) for seed in sorted(of))
            cells.append(f"{shown(statistics.fmean(of.values()), decimals)} <small>{each}</small>")
        rows.append([loss, *cells])
    last = (shown(rank_correlation(found[name], bool(kind)), 2) for name, kind in columns)
    headings = [HEADINGS[name].heading + (", corrected" if kind else "") for name, kind in columns]
    return table(["loss", *headings], [*rows, ["*rank correlation*", *last]])


def main() -> None:
    parser = argparse.ArgumentParser(description="What the losses do on ACDC, where the papers measured them.")
    parser.add_argument("comparisons", nargs="*", metavar="NAME=OUT/runs")
    parts = read_parts(FIGURES, parser.parse_args().comparisons)
    draw(drawn(parts), PICTURE)
    write_page("acdc")


if __name__ == "__main__":
    main()
