"""The cost column of docs/losses.md is what the benchmark measured; nothing is timed here."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

from monai_calib.losses import PRESETS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def column(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("cost_column")


def test_the_column_is_what_was_measured(column: ModuleType) -> None:
    page, ratios = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8"), column.kept_ratios()
    assert column.fill(page, ratios) == page
    assert set(re.findall(r"^\| `(\w+)` \| .* \| \d+\.\d \|", page, re.MULTILINE)) == set(PRESETS)
    assert column.fill(page, {name: ratio + 1 for name, ratio in ratios.items()}) != page


def test_a_row_without_a_measurement_is_an_error(column: ModuleType) -> None:
    row = r"| `new` | a \| b | c | d |  | e |"
    assert column.fill(row, {"new": 1.26}) == r"| `new` | a \| b | c | d | 1.3 | e |"
    assert column.fill("| name | a | b | c | cost | e |", {}) == "| name | a | b | c | cost | e |"
    with pytest.raises(KeyError, match="new"):
        column.fill(row, {})
