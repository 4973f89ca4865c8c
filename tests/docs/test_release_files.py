"""What a release needs: a citation of this version, and every file of the package in the wheel."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path

import pytest
import yaml
from written_pages import ROOT

from monai_calib import __version__

PACKAGE = ROOT / "monai_calib"
# compiled sweeps and byte code that a run leaves behind
MADE = {".pyc", ".pyo", ".nbi", ".nbc"}


def _setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def _outside(package: Path, patterns: list[str]) -> list[str]:
    """Return the files that no pattern of ``package_data`` takes, and Python files that no package holds."""
    taken = {path for pattern in patterns for path in package.glob(pattern)}
    files = [path for path in sorted(package.rglob("*")) if path.is_file() and path.suffix not in MADE]
    left = [path for path in files if path.suffix != ".py" and path not in taken]
    homeless = [path for path in files if path.suffix == ".py" and not (path.parent / "__init__.py").is_file()]
    return [path.relative_to(package).as_posix() for path in left + homeless]


def test_the_wheel_has_every_file_of_the_package() -> None:
    patterns = re.split(r",\s*", _setup()["options.package_data"]["monai_calib"].strip())
    assert not _outside(PACKAGE, patterns)


def test_a_file_left_out_is_seen(tmp_path: Path) -> None:
    for name in ("__init__.py", "page.css", "sub/page.j2", "sub/code.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert _outside(tmp_path, ["*.css"]) == ["sub/page.j2", "sub/code.py"]


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert citation["license"] == _setup()["metadata"]["license"]
    papers = {paper["notes"]: paper["url"] for paper in citation["references"]}
    for name in ("mbls", "nacl"):  # the papers that the losses' docstrings name
        link = next(url for note, url in papers.items() if name in note.lower())
        assert link in (PACKAGE / "losses" / f"{name}.py").read_text(encoding="utf-8")


def test_the_first_lines_of_the_changelog_are_of_this_version_or_the_next() -> None:
    newest = re.search(r"^## (\d+\.\d+\.\d+)( \(unreleased\))?", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[2] or newest[1] == __version__


@pytest.mark.parametrize("name", ["bug", "question"])
def test_forms_for_issues_ask_for_the_version(name: str) -> None:
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    fields = [field.get("id") for field in form["body"] if field["type"] != "markdown"]
    assert "version" in fields
    if name == "bug":
        assert {"layout", "command", "last_line"} <= set(fields)


def test_hooks_before_a_commit_are_those_of_make_lint() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2].partition("\n\n")[0]
    asked = {tuple(shlex.split(line)[2:4]) for line in lint.splitlines() if "-m ruff" in line}
    ours = {tuple(shlex.split(hook["entry"])[2:4]) for hook in hooks if "ruff" in hook["entry"]}
    assert ours == asked
    assert any(hook["entry"].endswith("-m mypy") for hook in hooks)
