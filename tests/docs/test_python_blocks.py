"""Python blocks of the pages compile, import public names that exist, and call them with arguments that exist."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from written_pages import PAGES, blocks, name_of

DOTTED = re.compile(r"\bmonai_calib(?:\.[A-Za-z_]\w*)+(?![\w/])")
BLOCKS = [
    pytest.param(block.text, id=f"{name_of(page)}:{block.line}")
    for page in PAGES
    for block in blocks(page)
    if block.language == "python"
]


def _resolve(dotted: str) -> Any:
    """Return the module or the attribute that a dotted name means."""
    parts = dotted.split(".")
    found = importlib.import_module(parts[0])
    for depth, part in enumerate(parts[1:], start=2):
        if not hasattr(found, part):
            importlib.import_module(".".join(parts[:depth]))
        found = getattr(found, part)
    return found


def _ours(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the name in the block and the dotted name of what it imports of this package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "monai_calib":
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.partition(".")[0] == "monai_calib"]
            yield from ((name, name) for name in names)


def _problems(text: str) -> list[str]:
    if text.startswith(">>>"):
        text = "".join(example.source for example in doctest.DocTestParser().get_examples(text))
    tree = ast.parse(text)
    problems, imported = [], {}
    for name, dotted in _ours(tree):
        if any(part.startswith("_") for part in dotted.split(".")):
            problems.append(f"{dotted} is not public")
        try:
            imported[name] = _resolve(dotted)
        except (ImportError, AttributeError) as error:
            problems.append(f"{dotted}: {error}")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in imported:
            continue
        positional = [] if any(isinstance(each, ast.Starred) for each in node.args) else node.args
        named = [keyword.arg for keyword in node.keywords if keyword.arg is not None]
        try:
            inspect.signature(imported[node.func.id]).bind_partial(*positional, **dict.fromkeys(named))
        except TypeError as error:
            problems.append(f"line {node.lineno}, {node.func.id}: {error}")
    return problems


@pytest.mark.parametrize("text", BLOCKS)
def test_blocks_use_what_exists(text: str) -> None:
    assert not _problems(text)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name_of)
def test_dotted_names_exist(page: Path) -> None:
    wrong = []
    for dotted in sorted(set(DOTTED.findall(page.read_text(encoding="utf-8")))):
        try:
            _resolve(dotted)
        except (ImportError, AttributeError) as error:
            wrong.append(f"{dotted}: {error}")
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_json_blocks_are_json(page: Path) -> None:
    for block in blocks(page):
        if block.language == "json":
            text = block.text if block.text.lstrip().startswith(("{", "[")) else "{" + block.text + "}"
            json.loads(text)


def test_wrong_blocks_are_seen() -> None:
    assert _problems("from monai_calib.losses import NoSuchLoss")
    assert _problems("from monai_calib.losses import MbLSLoss\nMbLSLoss(margn=5, **{})") == []  # open to options
    assert _problems("from monai_calib.metrics import ece\nece(hist, bins=5)")
    assert not _problems("from monai_calib.metrics import ece\nece(hist, num_bins=5)")
