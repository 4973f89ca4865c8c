"""Every figure on a page of results comes from the figures kept beside it."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

STUDIES = Path(__file__).parents[2] / "studies"
# What is aimed at or promised, and so measured nowhere.
BARS = {"0.05", "0.02", "0.004"}
LIMITS = {"0.1", "0.2"}


@pytest.mark.parametrize(
    ("name", "not_measured"),
    [
        ("results", set()),
        ("acdc", set()),
        ("other_data", set()),
        ("neighbourhood", {"0.1"}),
        ("one_training", {"0.1", "0.5", "2503.05107"}),
        ("auto_correction", {"0.5"}),
        ("posthoc_results", BARS),
        ("clinical", LIMITS),
        ("recipe", BARS | {"0.06"}),
        ("ensembles", {"0.1"}),
        ("raters", set()),
        ("nnunet", set()),
        ("own_images", set()),
        ("demo", set()),
        ("promises", set()),
        ("shift", set()),
        ("failure", {"0.1", "0.2", "0.85"}),
        ("metric_table", set()),
    ],
)
def test_pages_are_those_of_the_kept_figures(
    name: str, not_measured: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))
    module, pages = importlib.import_module(name), importlib.import_module("pages")
    page = (STUDIES / f"{name}.md").read_text(encoding="utf-8")
    kept = json.loads((STUDIES / f"{name}.json").read_text(encoding="utf-8"))
    assert pages.render(name) == page
    assert "<!--" not in page
    template = pages.template(name)
    assert set(pages.numbers_without_source(template)) <= not_measured
    assert all(f'{{{{ table("{table}") }}}}' in template for table in module.tables(kept))


@pytest.mark.parametrize("path", sorted((STUDIES / "cases").glob("*/*.json")), ids=lambda path: path.stem)
def test_kept_means_and_intervals_are_those_of_the_kept_cases(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))
    results, shared = importlib.import_module("results"), importlib.import_module("parts")
    parts = json.loads((STUDIES / f"{path.parent.name}.json").read_text(encoding="utf-8"))
    (part,) = (part for part in parts if shared.cases_of(path.parent.name, part["part"]) == path)
    against = ("nacl",) if path.parent.name == "neighbourhood" else results.AGAINST
    found = results.figures_of(json.loads(path.read_text(encoding="utf-8")), corrected=True, against=against)
    assert {name: part[name] for name in found} == found


def test_a_number_that_no_figure_stands_behind_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))
    pages = importlib.import_module("pages")
    assert pages.numbers_without_source('ECE of 0.123, {{ number("a", 3) }} and `0.4`') == ["0.123"]
    with pytest.raises(KeyError):
        pages.figure_at({"a": 1.0}, "b")


def test_intervals_of_the_losses_hold_their_means_and_seeds() -> None:
    for part in json.loads((STUDIES / "results.json").read_text(encoding="utf-8")):
        for method in part["methods"]:
            for name, (value, low, high) in method["figures"].items():
                assert low <= value <= high
                seeds = method["by_seed"][name]
                assert len(seeds) == len(method["seeds"])
                assert min(seeds) - 1e-4 <= value <= max(seeds) + 1e-4
