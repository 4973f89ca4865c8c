"""Tables and numbers of a page, filled in from the figures that are kept beside it.

A table stands between ``<!-- table: name -->`` and ``<!-- end -->``; a number in a sentence is followed by a comment
that says which figure it is: ``0.034<!-- name of the figure -->``. The comment does not show on the rendered page.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_TABLE = re.compile(r"<!-- table: (.+?) -->.*?<!-- end -->", re.DOTALL)
_NUMBER = re.compile(r"([−-]?\d+(?:\.\d+)?)<!-- (.+?) -->")


def fill(page: str, tables: Mapping[str, str], figure: Callable[[str], float]) -> str:
    """The page with every table and every number with a comment written anew, numbers with the decimals they have.

    Raises: ``KeyError`` for a table or a figure there is not.
    """
    page = _TABLE.sub(lambda found: f"<!-- table: {found[1]} -->\n\n{tables[found[1]]}\n\n<!-- end -->", page)

    def number(found: re.Match[str]) -> str:
        decimals = len(found[1].partition(".")[2])
        return f"{shown(figure(found[2]), decimals)}<!-- {found[2]} -->"

    return _NUMBER.sub(number, page)


def figure_at(figures: Mapping[str, Any], path: str) -> float:
    """A figure by its path in a page's comment, such as ``loss | correction | figures | name | 1``.

    The place 0 of an interval, its estimate, need not be named.
    """
    value: Any = figures
    for key in path.split(" | "):
        value = value[int(key) if isinstance(value, list) else key]
    return float(value[0] if isinstance(value, list) else value)


def prose_without_source(page: str) -> list[str]:
    """Decimal numbers outside tables and code that no comment ties to a figure."""
    prose = re.sub(r"```.*?```|`[^`]*`", "", _TABLE.sub("", page), flags=re.DOTALL)
    prose = _NUMBER.sub("", prose)
    return re.findall(r"\d+\.\d+", prose)


def shown(value: float, decimals: int) -> str:
    """A number with a true minus sign.

    >>> shown(-0.25, 1)
    '−0.2'
    """
    return f"{value:.{decimals}f}".replace("-", "−")


def cell(interval: Sequence[float], decimals: int, bold: bool = False) -> str:
    """An estimate with its interval in small print."""
    value, low, high = (shown(number, decimals) for number in interval)
    return f"{f'**{value}**' if bold else value} <small>{low} … {high}</small>"


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(heading) + " |", "|---" * len(heading) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def rounded(value: Any, digits: int = 5) -> Any:
    """The same value with floats rounded, so that kept figures stay small."""
    if isinstance(value, Mapping):
        return {key: rounded(inner, digits) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(inner, digits) for inner in value]
    return round(value, digits) if isinstance(value, float) else value


def write_json(path: Path, content: Any, depth: int = 0) -> None:
    """Write a file whole or not at all, one line for each entry down to ``depth``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(_text(content, depth) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _text(content: Any, depth: int) -> str:
    if depth == 0 or not isinstance(content, (Mapping, list)):
        return json.dumps(content, ensure_ascii=False, allow_nan=False)
    if isinstance(content, list):
        return "[\n" + ",\n".join(_text(value, depth - 1) for value in content) + "\n]"
    inner = (f"{json.dumps(key, ensure_ascii=False)}: {_text(value, depth - 1)}" for key, value in content.items())
    return "{\n" + ",\n".join(inner) + "\n}"
