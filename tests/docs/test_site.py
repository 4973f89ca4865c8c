"""The site's menu leads to every page; ``make docs`` itself, which needs MkDocs, holds links and anchors."""

from __future__ import annotations

import ast
import base64
import importlib
import importlib.util
import json
import os
import re
import sys
import types
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from written_pages import FENCE, PAGES, ROOT, name_of, prose


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """Return docs/hooks.py, with a stand-in where MkDocs is not installed."""
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("mkdocs") is None:
            files = types.ModuleType("mkdocs.structure.files")
            files.File = object  # type: ignore[attr-defined]
            for name in ("mkdocs", "mkdocs.structure"):
                patch.setitem(sys.modules, name, types.ModuleType(name))
            patch.setitem(sys.modules, files.__name__, files)
        spec.loader.exec_module(module)
    return module


def test_the_menu_names_pages_that_exist_once(hooks: ModuleType) -> None:
    menu = hooks.named(_settings()["nav"])
    assert len(menu) == len(set(menu))
    assert set(menu) <= set(hooks.PLACES.values())


def test_every_page_is_in_the_menu(hooks: ModuleType) -> None:
    """Pages without a place of their own, as a study just written, are appended."""
    settings = _settings()
    settings["nav"] = [{"Start": "why.md"}, {"Guide": ["losses.md"]}, {"Studies": []}]
    menu = hooks.named(hooks.on_config(settings)["nav"])
    assert len(menu) == len(set(menu))
    assert set(menu) == {place for place in hooks.PLACES.values() if place.endswith(".md")}
    assert "studies/results.md" in settings["nav"][2]["Studies"]


def _settings() -> Any:
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def test_nothing_is_fetched_from_elsewhere() -> None:
    settings = _settings()
    assert settings["strict"] is True
    assert settings["theme"]["font"] is False
    assert all((ROOT / "docs" / name).is_file() for name in settings["extra"]["polyfills"])


def test_two_files_never_share_a_place(hooks: ModuleType) -> None:
    assert len(set(hooks.PLACES.values())) == len(hooks.PLACES)


@pytest.mark.parametrize(
    ("name", "link", "leads"),
    [
        ("docs/losses.md", "../studies/results.md", "studies/results.md"),
        ("docs/bundles.md", "../CONTRIBUTING.md", "contributing.md"),
        ("docs/index.md", "losses.md#in-torchcompile", "losses.md#in-torchcompile"),
        ("docs/api.md", "../monai_calib/losses/__init__.py", "api/losses.md"),
        ("studies/results.md", "../docs/benchmarks/losses.md", "../benchmarks/losses.md"),
        ("studies/clinical.md", "figures/clinical_volumes.png", "figures/clinical_volumes.png"),
        ("docs/api.md", "https://example.org/a.md", "https://example.org/a.md"),
        ("docs/api.md", "../gone.md", "../gone.md"),
        ("docs/index.md", "notebooks/calibrate_your_model.ipynb", "notebooks/calibrate_your_model.md"),
        ("docs/notebooks/calibrate_your_model.ipynb", "../posthoc.md", "../posthoc.md"),
    ],
)
def test_links_lead_to_the_place_on_the_site(hooks: ModuleType, name: str, link: str, leads: str) -> None:
    page = types.SimpleNamespace(file=types.SimpleNamespace(src_uri=hooks.PLACES[name]))
    assert hooks.on_page_markdown(f"a [b]({link}) c", page) == f"a [b]({leads}) c"


def test_no_page_of_the_site_links_to_a_file_that_is_not_on_it(hooks: ModuleType) -> None:
    """MkDocs, strict, refuses such a page; on GitHub the link is fine."""
    pages = [name for name, place in hooks.PLACES.items() if name.endswith(".md") and place.endswith(".md")]
    assert "studies/one_training.md" in pages
    lost = [
        (name, link)
        for name in pages
        for link in hooks.LINK.findall(prose(ROOT / name))
        if not re.match(r"[a-z]+:|#", link)
        and os.path.normpath((ROOT / name).parent / link.partition("#")[0])
        not in {str(ROOT / on) for on in hooks.PLACES}
    ]
    assert lost == []


def test_api_pages_have_the_public_names(hooks: ModuleType) -> None:
    for package in hooks.API:
        names = importlib.import_module(f"monai_calib.{package}").__all__
        asked = [line[4:] for line in hooks.api_page(package).splitlines() if line.startswith("::: ")]
        assert sorted(asked) == sorted(f"monai_calib.{package}.{name}" for name in names)


def test_a_notebook_becomes_a_page(hooks: ModuleType, tmp_path: Path) -> None:
    picture = base64.b64encode(b"png").decode()
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"], "metadata": {}},
        {"cell_type": "code", "source": ["%%bash\n", "ls"], "metadata": {}, "outputs": [{"text": ["a\n", "b\n"]}]},
        {
            "cell_type": "code",
            "source": ["draw()"],
            "metadata": {"alt": "a curve"},
            "outputs": [{"data": {"image/png": picture, "text/plain": ["<Figure>"]}}],
        },
    ]
    (tmp_path / "first.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    page, pictures = hooks.notebook_page(tmp_path / "first.ipynb")
    assert page.startswith(
        "# Title\ntext\n\n```bash\nls\n```\n\n```text\na\nb\n```\n\n```python\ndraw()\n```\n\n![a curve]("
    )
    assert pictures == {"first_1.png": b"png"}
    assert "<Figure>" not in page


def test_hooks_import_nothing_of_the_package() -> None:
    tree = ast.parse((ROOT / "docs" / "hooks.py").read_text(encoding="utf-8"))
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [module for module in modules if module.startswith("monai_calib")]


def _read_otherwise(text: str) -> list[str]:
    """Return the lines that GitHub takes for a list, a table or a part of a list's item, and the site does not."""
    wrong = [match[0].splitlines()[0] for match in FENCE.finditer(text) if len(match["indent"]) % 4]
    lines = FENCE.sub(lambda match: "\n" * match[0].count("\n"), text).split("\n")
    paragraph = lines[0]  # its first line: a list goes on after an item, not after a paragraph, be it of an item
    for before, line in pairwise(lines):
        paragraph = paragraph if before else line
        in_list = re.match(r"([-*] |\d+\. |#|$)", before) or re.match(r"[-*] |\d+\. ", paragraph)
        if (re.match(r"[-*] |\d+\. ", line) and not in_list) or re.match(r" {1,3}([-*] |\d+\. )", line):
            wrong.append(line)
        if line.startswith("|") and before.strip() and not before.startswith("|"):
            wrong.append(line)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_read_alike_on_github_and_on_the_site(page: Path) -> None:
    assert not _read_otherwise(page.read_text(encoding="utf-8"))


def test_what_would_read_otherwise_is_seen() -> None:
    text = "Text\n- a\n  - b\n\nText\n| a |\n|---|\n\n1. a\n\n   ```\n   b\n   ```\n"
    assert _read_otherwise(text) == ["   ```", "- a", "  - b", "| a |"]
    assert not _read_otherwise("## A\n- a\n    - b\n\n| a |\n|---|\n\n1. a\n\n    ```\n    b\n    ```\n")
    assert _read_otherwise("1. a\n\n    b\n2. c\n") == ["2. c"]
    assert not _read_otherwise("1. a\n    b\n2. c\n\n    d\n\n3. e\n")
