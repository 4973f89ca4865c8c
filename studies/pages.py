"""Pages of results, rendered from templates and the figures kept beside them.

    python studies/pages.py [--check] [NAME...]

``NAME.md.j2`` is the template: ``{{ table("name") }}`` is a table, ``{{ number("path | of | a figure", 3) }}`` a number
with three decimals out of ``NAME.json``. ``NAME.py`` gives ``tables(kept)``, and ``figure(kept, path)`` where its paths
are its own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from monai_calib.files import write_text

HERE = Path(__file__).parent
PAGES = (
    "results",
    "acdc",
    "other_data",
    "neighbourhood",
    "one_training",
    "auto_correction",
    "posthoc_results",
    "clinical",
    "recipe",
    "ensembles",
    "nnunet",
    "raters",
    "own_images",
    "demo",
    "promises",
    "shift",
    "failure",
    "metric_table",
)


def render(name: str) -> str:
    """The page as its template, figures and script make it.

    Raises: ``KeyError`` for a table or a figure that there is not.
    """
    module = importlib.import_module(name)
    kept = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    tables, figure = module.tables(kept), getattr(module, "figure", figure_at)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.globals |= {
        "table": lambda key: tables[key],
        "number": lambda path, decimals: shown(figure(kept, path), decimals),
    }
    return environment.from_string(template(name)).render()


def template(name: str) -> str:
    """Text of a page's template."""
    return (HERE / f"{name}.md.j2").read_text(encoding="utf-8")


def write_page(name: str) -> None:
    """Render a page and write it."""
    (HERE / f"{name}.md").write_text(render(name), encoding="utf-8")


def numbers_without_source(text: str) -> list[str]:
    """Decimal numbers of a template, outside tables and code, that no figure stands behind."""
    prose = re.sub(r"```.*?```|`[^`]*`|{{.*?}}", "", text, flags=re.DOTALL)
    return re.findall(r"\d+\.\d+", prose)


def figure_at(figures: Mapping[str, Any], path: str) -> float:
    """A figure by its path, such as ``loss | correction | figures | name | 1``.

    The place 0 of an interval, its estimate, need not be named.
    """
    value: Any = figures
    for key in path.split(" | "):
        value = value[int(key) if isinstance(value, list) else key]
    return float(value[0] if isinstance(value, list) else value)


def shown(value: float, decimals: int) -> str:
    """A number with a true minus sign.

    >>> shown(-0.25, 1)
    '−0.2'
    """
    return f"{value:.{decimals}f}".replace("-", "−")


def cell(interval: Sequence[float], decimals: int, bold: bool = False) -> str:
    """An estimate with its interval, if it has one, in small print."""
    value, *limits = (shown(number, decimals) for number in interval)
    told = f"**{value}**" if bold else value
    return f"{told} <small>{' … '.join(limits)}</small>" if limits else told


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
    write_text(path, _text(content, depth) + "\n")


def _text(content: Any, depth: int) -> str:
    if depth == 0 or not isinstance(content, (Mapping, list)):
        return json.dumps(content, ensure_ascii=False, allow_nan=False)
    if isinstance(content, list):
        return "[\n" + ",\n".join(_text(value, depth - 1) for value in content) + "\n]"
    inner = (f"{json.dumps(key, ensure_ascii=False)}: {_text(value, depth - 1)}" for key, value in content.items())
    return "{\n" + ",\n".join(inner) + "\n}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Render the pages of results from their templates and figures.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"pages (default: {', '.join(PAGES)})")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is not what it would be")
    arguments = parser.parse_args()
    wrong = []
    for name in arguments.names or PAGES:
        if not arguments.check:
            write_page(name)
        elif render(name) != (HERE / f"{name}.md").read_text(encoding="utf-8"):
            wrong.append(f"studies/{name}.md")
    if wrong:
        print(f"not what their templates give: {', '.join(wrong)}. Run python studies/pages.py.", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
