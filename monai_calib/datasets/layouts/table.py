"""Cases listed in a table: CSV with a header, or JSON with a list of objects or the lists of a datalist."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...files import read_json
from ..case import case_name, file_safe, unique_names
from ..datalist import SPLITS
from ..dataset import Case, SourceError
from .layout import Found, is_image

__all__ = ["read_csv", "read_table"]

_KEYS = {
    "image": ("image", "images", "img"),
    "label": ("label", "labels", "mask", "masks", "seg", "segmentation"),
    "case": ("case", "name", "id"),
    "subject": ("subject", "patient", "patient_id", "subject_id"),
    "group": ("group", "site", "stratum"),
    "split": ("split", "set", "fold_name"),
}
_SPLITS = {"train": "training", "val": "validation", "valid": "validation", "testing": "test"}
_LONGEST = 1000
"""Characters of the name of a file, which no system's folders hold."""


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file (comma, semicolon or tab) by the header, names in small letters, without spaces around.

    Raises: :class:`SourceError` naming a file that is missing or no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = [line for line in text.splitlines() if line.strip()]
        separator = max(",;\t", key=(lines or [""])[0].count)
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path}: cannot be read as a table ({error}). Save it as CSV in UTF-8.") from error
    if not rows:
        return []
    header = [name.lower() for name in rows[0]]
    return [dict(zip(header, [*row, *[""] * len(header)], strict=False)) for row in rows[1:]]


def read_table(path: Path) -> Found:
    """Read the columns ``image``, ``label`` and, if there, ``case``, ``subject``, ``group``, ``split``.

    Several channels are ``image_<channel>`` or in JSON a list, several raters ``label_<rater>`` or a list, with their
    names under ``raters``. Paths are relative to the table.

    Raises: :class:`SourceError` on what is no table; wrong rows are in ``problems``.
    """
    found = Found("a table", path.absolute().parent.name if path.stem in ("datalist", "dataset") else path.stem, ())
    rows = _rows(path, found)
    kept: list[tuple[str, dict[str, Any]]] = []
    for number, row in enumerate(rows, 1):
        where = f"{path}: row {number}"
        if not isinstance(row, Mapping):
            found.problems.append(f"{where}: expected image and label, got {row!r}. Mend the table.")
            continue
        read = {key: _several(row, key) for key in ("image", "label")}
        lacking = [key for key, (_, files) in read.items() if not files]
        if lacking:
            names = ", ".join(map(str, row))
            found.problems.append(
                f"{where}: no {' and no '.join(lacking)}, only {names}. Name the columns image, label."
            )
            continue
        no_names = [name for _, names in read.values() for name in names if "\0" in name or len(name) > _LONGEST]
        if no_names:
            found.problems.append(f"{where}: expected names of files, got {no_names[0]!r:.60}. Mend the table.")
            continue
        files = {key: tuple(path.parent / name for name in names) for key, (_, names) in read.items()}
        for file in (*files["image"], *files["label"]):
            if not file.is_file():
                found.problems.append(f"{where}: {file}: missing. Paths are relative to the table; correct it.")
            elif not is_image(file):
                found.problems.append(f"{where}: {file}: not an image by its name. Save it as NIfTI or PNG.")
        kept.append((where, {**files, "channels": read["image"][0], "raters": read["label"][0], "row": row}))
    _build(found, kept)
    return found


def _rows(path: Path, found: Found) -> Sequence[Any]:
    if path.suffix.lower() != ".json":
        rows: Any = read_csv(path)
    else:
        rows = read_json(path, error=SourceError, advice="Mend the file.")
        if isinstance(rows, dict):
            found.title = str(rows.get("name") or found.title)
            found.description = str(rows.get("description") or "")
            found.licence = str(rows.get("licence") or "")
            lists = {split: rows[split] for split in SPLITS if isinstance(rows.get(split), list)}
            validated = bool(lists.get("validation"))
            rows = [
                {"split": split if validated or split == "test" else "", **row} if isinstance(row, dict) else row
                for split, listed in lists.items()
                for row in listed
            ]
    if not isinstance(rows, list) or not rows:
        raise SourceError(f"{path}: expected rows with image and label, got none. Fill the table.")
    return rows


def _build(found: Found, kept: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    given = [str(_cell(row["row"], "case")) for _, row in kept]
    by_file = unique_names([row["image"][0] for _, row in kept])
    for (where, row), said, name in zip(kept, given, by_file, strict=True):
        case = case_name(said) or name
        raters = row["raters"]
        if len(row["label"]) > 1 or raters:
            raters = tuple(map(file_safe, raters or range(1, len(row["label"]) + 1)))
            if len(set(raters)) != len(row["label"]):
                found.problems.append(
                    f"{where}: raters: expected {len(row['label'])} different names, got {raters}. Mend it."
                )
                continue
        subject, group = (str(_cell(row["row"], key)) for key in ("subject", "group"))
        split = str(_cell(row["row"], "split")).lower()
        split = _SPLITS.get(split, split)
        if split and split not in SPLITS:
            found.problems.append(f"{where}: split: expected {', '.join(SPLITS)} or nothing, got {split}. Mend it.")
        elif split:
            found.split[case] = split
        found.cases.append(Case(case, subject, row["image"], row["label"], group, tuple(raters)))
    channels = {row["channels"] for _, row in kept}
    if len(channels) == 1 and len(names := channels.pop()) > 1:
        found.channels = names


def _cell(row: Mapping[str, Any], key: str) -> Any:
    return next((row[name] for name in _KEYS[key] if row.get(name) not in (None, "")), "")


def _several(row: Mapping[str, Any], key: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and files of the channels or raters; a single file has no name."""
    value = _cell(row, key)
    if isinstance(value, list):
        names = row.get("raters" if key == "label" else "channels")
        numbers = [str(number) for number in range(1, len(value) + 1)]
        return tuple(map(str, names if isinstance(names, list) else numbers)), tuple(map(str, value))
    if value:
        return (), (str(value),)
    pattern = re.compile(rf"(?:{'|'.join(_KEYS[key])})_(.+)")
    found = {match[1]: str(cell) for name, cell in row.items() if cell and (match := pattern.fullmatch(str(name)))}
    return tuple(found), tuple(found.values())
