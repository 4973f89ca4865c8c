"""Every figure on a page of results comes from the figures kept beside it."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
# What is aimed at or promised, and so measured nowhere.
BARS = {"0.05", "0.02", "0.004"}
LIMITS = {"0.1", "0.2"}


@pytest.mark.parametrize(
    ("name", "not_measured"),
    [("results", set()), ("posthoc_results", BARS), ("clinical", LIMITS), ("recipe", BARS | {"0.06"})],
)
def test_tables_and_sentences_are_those_of_the_kept_figures(
    name: str, not_measured: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    module, pages = importlib.import_module(name), importlib.import_module("pages")
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    kept = json.loads((DOCS / f"{name}.json").read_text(encoding="utf-8"))
    figure = getattr(module, "figure", pages.figure_at)
    assert pages.fill(page, module.tables(kept), lambda path: figure(kept, path)) == page
    assert set(pages.prose_without_source(page)) <= not_measured
    assert all(f"<!-- table: {table} -->" in page for table in module.tables(kept))


def test_intervals_of_the_losses_hold_their_means_and_seeds() -> None:
    for part in json.loads((DOCS / "results.json").read_text(encoding="utf-8")):
        for method in part["methods"]:
            for name, (value, low, high) in method["figures"].items():
                assert low <= value <= high
                seeds = method["by_seed"][name]
                assert len(seeds) == len(method["seeds"])
                assert min(seeds) - 1e-4 <= value <= max(seeds) + 1e-4
