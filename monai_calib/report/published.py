"""Figures from other people's publications, to stand beside ours and apart from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import read_json
from .runs import RunError

__all__ = ["PublishedTable", "read_published"]

FORMAT = "monai_calib/published/1"
_ADVICE = f'Write {{"format": "{FORMAT}", "tables": [{{"title": …, "source": …, "columns": […], "rows": [[…], …]}}]}}.'


@dataclass(frozen=True)
class PublishedTable:
    """A table as its source prints it: nothing in it was measured here."""

    title: str
    source: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]


def read_published(path: Path) -> tuple[PublishedTable, ...]:
    """Reads ``{"format": "monai_calib/published/1", "tables": [{"title", "source", "note", "columns", "rows"}]}``.

    ``source`` is the citation and must be there; ``note`` says how the figures were measured; the first column names
    the method; a cell is text, a number or null.

    Raises: :class:`~.runs.RunError` if the file cannot be read, or a row has another length than ``columns``.
    """
    content = read_json(path, FORMAT, _ADVICE, RunError)
    try:
        return tuple(_table(fields) for fields in content["tables"])
    except Exception as error:
        what = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise RunError(f"{path} is not a complete {FORMAT} file: {what}. {_ADVICE}") from error


def _table(fields: dict[str, Any]) -> PublishedTable:
    title, source = str(fields["title"]), str(fields["source"])
    columns = tuple(str(column) for column in fields["columns"])
    rows = tuple(tuple(row) for row in fields["rows"])
    for row in rows:
        if len(row) != len(columns) or not all(cell is None or isinstance(cell, (str, int, float)) for cell in row):
            raise ValueError(f"table {title!r}: expected {len(columns)} cells of text or numbers a row, got {row}")
    return PublishedTable(title, source, str(fields.get("note", "")), columns, rows)
