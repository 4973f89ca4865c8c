"""Every figure on the page of results comes from the results that are kept beside it."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "results.md").read_text(encoding="utf-8")
PARTS = json.loads((DOCS / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def results() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results", DOCS / "results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_those_of_the_kept_results(results: ModuleType) -> None:
    assert results.fill(PAGE, PARTS) == PAGE
    for part in PARTS:
        assert f"of {part['bundle']} -->" in PAGE


def test_intervals_hold_their_means_and_seeds() -> None:
    for part in PARTS:
        for method in part["methods"]:
            for name, (value, low, high) in method["figures"].items():
                assert low <= value <= high
                seeds = method["by_seed"][name]
                assert len(seeds) == len(method["seeds"])
                assert min(seeds) - 1e-4 <= value <= max(seeds) + 1e-4


def test_every_number_of_the_reading_is_one_of_the_tables() -> None:
    """A number with decimals in the prose must stand in a table of the page, rounded as there."""
    prose = PAGE.split("## What it says")[1].split("## Published figures")[0]
    tables = "\n".join(line for line in PAGE.splitlines() if line.startswith("|"))
    known = set(re.findall(r"\d+\.\d+", tables))
    # changes in per cent stand there as whole numbers
    known_changes = set(re.findall(r"[+-]\d+(?= <small>)", tables))
    for number in re.findall(r"(?<![\w.])\d+\.\d+", prose):
        assert number in known, number
    for change in re.findall(r"(\d+) %", prose):
        assert {f"+{change}", f"-{change}"} & known_changes, change
