"""Every figure of the table of averaged predictions, and of the sentences about it, comes from what is kept."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_table_is_that_of_the_kept_figures() -> None:
    spec = importlib.util.spec_from_file_location("ensembles", DOCS / "ensembles.py")
    assert spec is not None
    assert spec.loader is not None
    ensembles = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ensembles)
    page = (DOCS / "posthoc.md").read_text(encoding="utf-8")
    rows = json.loads((DOCS / "ensembles.json").read_text(encoding="utf-8"))
    assert "<!-- table: ensembles -->" in page
    assert ensembles.fill(page, rows) == page
    for row in rows:
        assert row["subjects"] == 44
        for value, low, high in [*row["figures"].values(), *row["change"].values()]:
            assert low <= value <= high
        if row["way"] == ensembles.PLAIN:
            assert all(value == [0, 0, 0] for value in row["change"].values())


def test_numbers_of_the_sentences_about_it_are_in_the_table() -> None:
    page = (DOCS / "posthoc.md").read_text(encoding="utf-8")
    section = page.split("## Averages of several predictions")[1].split("\n## ")[0]
    table = re.search(r"<!-- table: ensembles -->.*?<!-- end -->", section, re.DOTALL)
    assert table is not None
    prose = re.sub(r"```.*?```|`[^`]*`", "", section.replace(table[0], ""), flags=re.DOTALL)
    numbers = re.findall(r"0\.\d+", prose)
    assert numbers
    for number in numbers:
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", table[0]), number
