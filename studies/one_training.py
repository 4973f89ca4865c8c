"""Whether one training can be calibrated without a correction: losses that know when to stop, on several data sets.

    python studies/one_training.py "NAME=OUT/runs" "NAME=OUT/runs=LOSS" ...   # read comparisons, then write the page
    python studies/one_training.py                                            # write the page from one_training.json

Runs are kept, and added to, as those of :mod:`other_data`; ``=LOSS`` names runs of a loss of one_training_losses.py.
Beside them stand the same seed's means of trainings that were alike, from the pages in :data:`ALIKE`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from other_data import COLUMNS, draw, read_parts
from pages import table, write_page
from results import AGAINST
from results import COLUMNS as HEADINGS

FIGURES = Path(__file__).with_suffix(".json")
PICTURE = FIGURES.with_name("figures") / "one_training.svg"
ALIKE = {
    "hippocampus, 10 epochs": ("other_data", "hippocampus, 3D, 10 epochs"),
    "hippocampus, 40 epochs, augmented": ("results", "3D, 40 epochs, augmented, float32"),
    "heart, 2D, 30 epochs": ("other_data", "heart, 2D, 30 epochs"),
    "ultrasound, 2D, 20 epochs": ("other_data", "ultrasound, 2D, 20 epochs"),
}
"""Where the means of other losses are kept, of trainings with the same seed, split and schedule."""
YARDSTICKS = ("ce", "dice_ce", "dice_ce_surgery", "recommended")
SEED = 0


def means(parts: Sequence[Mapping[str, Any]], name: str) -> dict[tuple[str, str], dict[str, float]]:
    """Means over the test cases of one seed, by loss and correction."""
    (own,) = (part for part in parts if part["part"] == name)
    found = {**dict(_of(own["methods"])), **dict(_alike(name))}
    return {key: found[key] for key in sorted(found)}


def _of(methods: Sequence[Mapping[str, Any]], seed: int = SEED) -> Iterator[tuple[tuple[str, str], dict[str, float]]]:
    for method in methods:
        if seed in method["seeds"]:
            place = method["seeds"].index(seed)
            figures = {column: values[place] for column, values in method["by_seed"].items()}
            yield (method["loss_name"], method["posthoc"]), figures


def _alike(name: str) -> Iterator[tuple[tuple[str, str], dict[str, float]]]:
    yield from _of(
        [each for each in _methods(*ALIKE[name]) if each["loss_name"] in YARDSTICKS] if name in ALIKE else []
    )


def _methods(page: str, part: str) -> list[Mapping[str, Any]]:
    kept = json.loads((FIGURES.with_name(f"{page}.json")).read_text(encoding="utf-8")) if page else []
    return [method for each in kept if each["part"] == part for method in each["methods"]]


def figure(parts: Sequence[Mapping[str, Any]], path: str) -> float:
    """``part | loss | correction or nothing | name``, of seed 0; ``lower | part | loss | correction | other | name`` or
    ``higher``: by how many per cent, over the seeds that both have; ``less | part | loss | other | name``: by how many
    hundredths."""
    kind, *rest = path.split(" | ")
    if kind in ("lower", "higher"):
        part, loss, posthoc, other, column = rest
        pairs = _pairs(parts, part, loss, posthoc.strip(), other)
        ratio = _mean(pairs, 0, column) / _mean(pairs, 1, column)
        return 100 * (1 - ratio if kind == "lower" else ratio - 1)
    if kind == "less":
        part, loss, other, column = rest
        pairs = _pairs(parts, part, loss, "", other)
        return 100 * (_mean(pairs, 1, column) - _mean(pairs, 0, column))
    loss, posthoc, column = rest
    return means(parts, kind)[loss, posthoc.strip()][column]


def _mean(pairs: Mapping[int, tuple[dict[str, float], ...]], place: int, column: str) -> float:
    return statistics.fmean(pair[place][column] for pair in pairs.values())


def _pairs(
    parts: Sequence[Mapping[str, Any]], part: str, loss: str, posthoc: str, other: str
) -> dict[int, tuple[dict[str, float], dict[str, float]]]:
    """Figures of a loss and of another, by the seeds that both have."""
    (own,) = (each["methods"] for each in parts if each["part"] == part)
    found = {}
    for seed in range(5):
        first = dict(_of(own, seed)).get((loss, posthoc))
        second = dict(_of(_methods(*ALIKE[part]), seed)).get((other, posthoc))
        if first and second:
            found[seed] = first, second
    return found


def seed_table(parts: Sequence[Mapping[str, Any]]) -> str:
    """A row a data set, correction and seed of the fading Dice that Dice + CE has too: figures of both."""
    rows = []
    for part in parts:
        for posthoc in ("", "auto"):
            for seed, pair in _pairs(parts, part["part"], "dice_ce_fading", posthoc, "dice_ce").items():
                cells = [
                    ", ".join(f"{each[name]:.{HEADINGS[name].decimals}f}" for each in pair) for name in COLUMNS[:5]
                ]
                rows.append([part["part"], posthoc or "as trained", str(seed), *cells])
    return table(["data", "", "seed", *(HEADINGS[name].heading for name in COLUMNS[:5])], rows)


def tables(parts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """All tables of the page by name: a row a loss and correction, best in bold."""
    made = {"seeds": seed_table(parts)}
    for part in parts:
        found = means(parts, part["part"])
        distance = {"low": float, "high": lambda value: -value, "zero": abs}
        best = {
            column: min((each[column] for each in found.values()), key=distance[HEADINGS[column].best])
            for column in COLUMNS
        }
        rows = []
        for (loss, posthoc), each in found.items():
            cells = [f"{each[column]:.{HEADINGS[column].decimals}f}".replace("-", "−") for column in COLUMNS]
            marked = [
                f"**{cell}**" if each[column] == best[column] else cell
                for column, cell in zip(COLUMNS, cells, strict=True)
            ]
            rows.append([f"`{loss}`" + (f" → {posthoc}" if posthoc else ""), *marked])
        headings = [HEADINGS[column].heading.replace("2 mm", f"2 {part['unit']}") for column in COLUMNS]
        made[part["part"]] = table(["loss", *headings], rows)
    return made


def drawn(parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What :func:`other_data.draw` takes: the figures of the tables."""
    return [
        {
            "part": part["part"],
            "methods": [
                {
                    "loss_name": loss,
                    "loss_args": {},
                    "posthoc": posthoc,
                    "figures": {name: [value] for name, value in figures.items()},
                }
                for (loss, posthoc), figures in means(parts, part["part"]).items()
            ],
        }
        for part in parts
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether one training can be calibrated without a correction.")
    parser.add_argument("comparisons", nargs="*", metavar="NAME=OUT/runs[=LOSS]")
    draw(drawn(read_parts(FIGURES, parser.parse_args().comparisons, AGAINST)), PICTURE)
    write_page("one_training")


if __name__ == "__main__":
    main()
