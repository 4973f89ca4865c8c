"""Findings of a conversion: a table of the cases for programs, and a short text for people."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_calib.words import counted

from ..spreadsheet import cell
from .datalist import SPLITS

__all__ = ["summarise", "write_table"]


def write_table(datalist: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write a row per case: split, subject, group, shape, spacing in mm, voxels of each class."""
    names = list(datalist["labels"].values())
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        sizes = f"spacing_{datalist.get('unit', 'mm')}"
        table.writerow(["case", "split", "subject", "group", "shape", sizes, *(cell(f"voxels_{n}") for n in names)])
        for split in SPLITS:
            for entry in datalist[split]:
                record = records[entry["case"]]
                shape, size = _times(record["shape"]), _times(record["spacing"])
                who = cell(entry["case"]), split, cell(entry["subject"]), cell(entry.get("group", ""))
                table.writerow([*who, shape, size, *record["voxels"]])


def summarise(datalist: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]], official: int | None) -> str:
    """Text on cases and subjects per split, shapes, spacings, voxels per class.

    Args:
        datalist: the lists of cases.
        records: shape, spacing and voxels of each case.
        official: number of cases of the official download; None for data of one's own.
    """
    entries = {split: datalist[split] for split in SPLITS}
    subjects = {split: {entry["subject"] for entry in chosen} for split, chosen in entries.items()}
    cases, people = sum(map(len, entries.values())), len(set().union(*subjects.values()))
    every = f"{cases} of the official {official} labelled cases" if official else counted(cases, "labelled case")
    lines = [
        f"{datalist['name']}: {every}, {counted(people, 'subject')}, split with seed {datalist['seed']}",
        "",
        f"{'split':<12}{'cases':>8}{'subjects':>10}",
        *(f"{split:<12}{len(entries[split]):>8}{len(subjects[split]):>10}" for split in SPLITS),
    ]
    groups = sorted({entry["group"] for chosen in entries.values() for entry in chosen if "group" in entry})
    for group in groups:
        counts = [sum(entry["group"] == group for entry in entries[split]) for split in SPLITS]
        lines.append(f"  group {group}: " + " / ".join(map(str, counts)) + " cases")
    sizes = [_times(record["spacing"]) for record in records.values()]
    shapes = np.array([record["shape"] for record in records.values()])
    lines += [
        "",
        f"shape       {_times(shapes.min(0))} to {_times(shapes.max(0))}, median {_times(np.median(shapes, 0))}",
        f"spacing {datalist.get('unit', 'mm')}  {_most_common(sizes)}",
        "",
        f"{'class':<34}{'voxels':>14}{'share':>9}{'cases without':>15}",
    ]
    voxels = np.array([record["voxels"] for record in records.values()])
    for value, name in enumerate(datalist["labels"].values()):
        count = int(voxels[:, value].sum())
        absent = int((voxels[:, value] == 0).sum())
        lines.append(f"{value:>3} {name:<30}{count:>14}{count / voxels.sum():>9.3%}{absent:>15}")
    return "\n".join(lines) + "\n"


def _times(values: Sequence[float] | np.ndarray[Any, Any]) -> str:
    return "x".join(f"{float(value):g}" for value in values)


def _most_common(values: Sequence[str], shown: int = 4) -> str:
    found = Counter(values).most_common()
    listed = [f"{value} ({count})" for value, count in found[:shown]]
    return ", ".join(listed) + (f" and {counted(len(found) - shown, 'other')}" if len(found) > shown else "")
