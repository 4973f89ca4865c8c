"""Losses trained several times, and whether they come in the same order."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module("acdc")


def part(study: ModuleType, name: str, nll: dict[str, dict[int, float]]) -> dict[str, Any]:
    """A part with trainings by loss and seed; corrected, all have half of their NLL. Other figures are 1 - NLL."""
    methods = []
    for loss, of in nll.items():
        for posthoc, factor in (("", 1.0), ("auto", 0.5)):
            columns = {
                name: [value * factor if name == "nll_all" else 1 - value for value in of.values()]
                for name in study.COLUMNS
            }
            told = {"loss_name": loss, "loss_args": {}, "posthoc": posthoc}
            methods.append({**told, "seeds": list(of), "by_seed": columns})
    return {"part": name, "methods": methods}


@pytest.fixture
def parts(study: ModuleType) -> list[dict[str, Any]]:
    return [
        part(study, study.FIRST, {"a": {0: 0.1}, "b": {0: 0.2}, "c": {0: 0.3}, "once": {0: 0.4}}),
        part(study, study.FLAT, {"a": {1: 0.3, 2: 0.2}, "b": {1: 0.2, 2: 0.3}, "c": {1: 0.1, 2: 0.4}}),
        part(study, "heart, 3D, 30 epochs", {"a": {1: 9.0}, "once": {1: 9.0}}),
    ]


def test_all_trainings_in_2d_stand_beside_each_other(study: ModuleType, parts: list[dict[str, Any]]) -> None:
    found = study.by_training(parts)["nll_all"]
    assert found["`a`"] == {0: 0.1, 1: 0.3, 2: 0.2}
    assert found["`a` → auto"] == {0: 0.05, 1: 0.15, 2: 0.1}
    # The orders abc, cba, abc: correlations -1, 1 and -1.
    assert study.rank_correlation(found, corrected=False) == pytest.approx(-1 / 3)
    lines = study.trainings_table(parts).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:-1]] == ["| `a`", "| `b`", "| `c`", "| `once`"]
    assert lines[2].endswith(
        "| 0.2000 <small>0.1000, 0.3000, 0.2000</small> | 0.1000 <small>0.0500, 0.1500, 0.1000</small> |"
    )
    assert lines[-1].endswith("| −0.33 | −0.33 |")


def test_a_change_is_over_the_trainings_that_both_losses_have(study: ModuleType, parts: list[dict[str, Any]]) -> None:
    assert study.figure(parts, "trainings | `b` | mean | nll_all") == pytest.approx(0.7 / 3)
    assert study.figure(parts, "trainings | `b` | above `a` | nll_all") == pytest.approx(100 * (0.7 / 0.6 - 1))
    assert study.figure(parts, "trainings | `once` | above `a` | nll_all") == pytest.approx(300)
    assert study.figure(parts, "trainings | `b` | less `a` | dsc") == pytest.approx(100 * (0.7 - 0.6) / 3)
    assert study.figure(parts, "trainings | `a` | below `b` | nll_all") == pytest.approx(100 * (1 - 0.6 / 0.7))
    with pytest.raises(ValueError, match=r"0\.2333 against 0\.2"):
        study.figure(parts, "trainings | `b` | below `a` | nll_all")
    assert study.figure(parts, "trainings | order | corrected | nll_all") == pytest.approx(-1 / 3)


def test_the_figure_in_2d_is_of_all_trainings(study: ModuleType, parts: list[dict[str, Any]]) -> None:
    flat, space = study.drawn(parts)
    assert (flat["part"], space) == (study.FLAT, parts[2])
    assert [method["figures"]["nll_all"][0] for method in flat["methods"]] == pytest.approx(
        [0.2, 0.1, 0.7 / 3, 0.35 / 3, 0.8 / 3, 0.4 / 3]
    )
