"""Losses trained twice, and whether they come in the same order."""

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
    return importlib.import_module("other_data")


def part(study: ModuleType, name: str, seed: int, nll: dict[str, float]) -> dict[str, Any]:
    """A part with one training of each loss; corrected, all have half of their NLL. Other figures are 1 - NLL."""
    methods = []
    for loss, value in nll.items():
        for posthoc, factor in (("", 1.0), ("auto", 0.5)):
            by_seed = {column: [value * factor if column == "nll_all" else 1 - value] for column in study.COLUMNS}
            told = {"loss_name": loss, "loss_args": {}, "posthoc": posthoc}
            methods.append({**told, "seeds": [seed], "by_seed": by_seed})
    return {"part": name, "methods": methods}


def test_trainings_of_all_parts_on_some_data_stand_beside_each_other(study: ModuleType) -> None:
    parts = [
        part(study, "heart, 2D, first", 0, {"a": 0.1, "b": 0.2, "c": 0.3, "once": 0.4}),
        part(study, "heart, 2D, second", 1, {"a": 0.3, "b": 0.2, "c": 0.1}),
        part(study, "hippocampus", 1, {"a": 9.0, "once": 9.0}),
    ]
    found = study.by_training(parts, "heart, 2D")["nll_all"]
    assert found["`a`"] == {0: 0.1, 1: 0.3}
    assert found["`a` → auto"] == {0: 0.05, 1: 0.15}
    assert study.rank_correlation(found, corrected=False) == pytest.approx(-1)
    assert study.rank_correlation(found, corrected=True) == pytest.approx(-1)
    lines = study.trainings_table(parts, "heart, 2D").splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| `a`", "| `b`", "| `c`", "| *rank correlation*"]
    assert lines[2].endswith("| 0.1000, 0.3000 | 0.0500, 0.1500 |")
    assert lines[-1].endswith("| −1.00 | −1.00 |")
