"""Names of cases: whom they were taken from, and lists of them."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from monai_calib.datasets.case import case_of_file
from monai_calib.datasets.datalist import SPLITS, load_datalist
from monai_calib.files import FileError

__all__ = ["case_list", "some", "subjects_of"]

_FILES = (".nii", ".nii.gz", ".npz", ".mha", ".mhd", ".nrrd", ".png")


def subjects_of(cases: Sequence[str], given: str | None) -> dict[str, str]:
    """Whom each case was taken from.

    Args:
        cases: names.
        given: a regular expression whose first group (or match) is the subject; or a ``.csv`` of case and subject. By
            default a case is a subject of its own.

    Raises: ``ValueError`` for cases that the expression does not match or the table does not hold.

    Example:
        >>> subjects_of(["patient001_frame01", "patient001_frame12"], r"(patient\\d+)_")
        {'patient001_frame01': 'patient001', 'patient001_frame12': 'patient001'}
    """
    if given is None:
        return {case: case for case in cases}
    if given.lower().endswith(".csv"):
        try:
            with Path(given).open(newline="", encoding="utf-8-sig") as file:
                rows = [row for row in csv.reader(file) if len(row) > 1]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise FileError(f"{given}: cannot be read as a table ({error}). Save it as CSV in UTF-8.") from error
        table = {row[0].strip(): row[1].strip() for row in rows}
        found = {case: table.get(case, "") for case in cases}
    else:
        try:
            expression = re.compile(given)
        except re.error as error:
            raise ValueError(f"--subjects: expected a regular expression or a .csv, got {given!r} ({error}).") from None
        matches = {case: expression.search(case) for case in cases}
        found = {case: match.group(1 if expression.groups else 0) if match else "" for case, match in matches.items()}
    missing = [case for case, subject in found.items() if not subject]
    if missing:
        raise ValueError(
            f"--subjects {given}: expected a subject for each case, got none for {some(missing)}. "
            "Give an expression whose first group is the subject, or a .csv with the columns case and subject."
        )
    return found


def case_list(given: str | Path) -> list[str]:
    """Cases named in a text file, one a line, or in a split of a datalist: ``datalist.json`` or ``datalist.json:test``.

    Raises: :class:`~monai_calib.files.FileError` for a file that is missing or names none.
    """
    text = str(given)
    split = "validation"
    for name in SPLITS:
        if text.endswith(f".json:{name}"):
            text, split = text.removesuffix(f":{name}"), name
    path = Path(text)
    if path.suffix == ".json":
        return [str(entry["case"]) for entry in load_datalist(path.parent, split, needs_label=False)]
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: cannot be read ({error}). Name a text file with one case a line.") from error
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise FileError(f"{path}: expected one case a line, got none. List the cases to fit on.")
    return [case_of_file(name) if name.endswith(_FILES) else name for name in dict.fromkeys(names)]


def some(names: Sequence[str], shown: int = 5) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
