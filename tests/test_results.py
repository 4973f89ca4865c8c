"""Every figure on the page of results comes from the results that are kept beside it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_tables_are_those_of_the_kept_results() -> None:
    spec = importlib.util.spec_from_file_location("results", DOCS / "results.py")
    assert spec is not None
    assert spec.loader is not None
    results = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(results)
    page = (DOCS / "results.md").read_text(encoding="utf-8")
    runs = json.loads((DOCS / "results.json").read_text(encoding="utf-8"))
    assert results.fill(page, runs) == page
    for run in runs:
        assert f"<!-- table: {run['bundle']} -->" in page
        for value, low, high in run["figures"].values():
            assert low <= value <= high
