"""The JSON files that the pages are made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .case_tables import RunError

__all__ = ["read_format"]


def read_format(path: Path, expected: str, advice: str) -> dict[str, Any]:
    """The content of a JSON file that says which format it has.

    Args:
        path: the file.
        expected: what must stand under ``"format"``.
        advice: the last sentence of the errors: what to do.

    Raises: :class:`~.case_tables.RunError` naming the file if it cannot be read or has another format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as JSON: {error}. {advice}") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != expected:
        raise RunError(f"{path}: expected format {expected!r}, got {found!r}. {advice}")
    return content
