"""The package's language: docstrings begin with plain statements, and a figure is a plot."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "monai_calib"
NO_STATEMENT = re.compile(r"(What|How|Why|From|Where|When|Whose|Everything|All that|The one|As)\b")
# names that call a metric or a text a figure, still
NO_PLOTS: set[str] = set()
Described = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _headlines() -> Iterator[tuple[str, str, bool]]:
    """Yield place, first paragraph and whether the name is public, of every docstring in the package."""
    for path in sorted(PACKAGE.glob("**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = ast.get_docstring(node) if isinstance(node, Described) else None
            if text is not None:
                name = "" if isinstance(node, ast.Module) else node.name
                line = 1 if isinstance(node, ast.Module) else node.lineno
                place = f"{path.relative_to(PACKAGE.parent)}:{line} {name}"
                yield place, text.split("\n\n")[0].strip(), not name.startswith("_")


def test_headlines_are_statements() -> None:
    wrong = [f"{place}: {headline}" for place, headline, _ in _headlines() if NO_STATEMENT.match(headline)]
    assert not wrong, "begin with a verb or a noun:\n" + "\n".join(wrong)


def test_public_headlines_end_with_a_full_stop() -> None:
    ends = (".", ":", "?", "...", "``")  # a colon leads to a list or a formula
    wrong = [f"{place}: {headline}" for place, headline, public in _headlines() if public]
    wrong = [line for line in wrong if not line.endswith(ends)]
    assert not wrong, "end the first sentence with a full stop:\n" + "\n".join(wrong)


def test_figures_are_plots() -> None:
    found = set()
    for path in sorted(PACKAGE.glob("**/*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.name if isinstance(node, ast.ClassDef | ast.FunctionDef) else ""
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name = node.target.id
            if "figure" in name.lower() and not name.startswith("_") and not place.startswith("report/"):
                found.add(f"{place} {name}")
    assert found <= NO_PLOTS, f"a number is a metric, only a plot is a figure: {sorted(found - NO_PLOTS)}"


def test_nothing_sends_a_user_of_the_wheel_to_a_page_that_it_does_not_hold() -> None:
    """A bundle has a ``docs/README.md`` of its own; the repository's pages are not in the wheel."""
    page = re.compile(r"\b(?:docs|studies)/(?!README\.md)\w+\.md")
    texts = {path: path.read_text(encoding="utf-8") for path in sorted((PACKAGE / "bundling").glob("**/*.yaml"))}
    texts |= {path: path.read_text(encoding="utf-8") for path in sorted((PACKAGE / "bundling/template").iterdir())}
    for path in sorted(PACKAGE.glob("**/*.py")):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        texts[path] = "\n".join(n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))
    found = {path.relative_to(PACKAGE).as_posix(): page.findall(text) for path, text in texts.items()}
    assert {name: pages for name, pages in found.items() if pages} == {}
