"""The tables of losses: changes against one of them, and their tests."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

STUDIES = Path(__file__).parents[2] / "studies"
SUBJECTS = [f"subject_{number}" for number in range(8)]


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module("results")


def part(results: ModuleType, others: dict[str, list[float]]) -> dict[str, Any]:
    """A part of Dice + CE, 0.5 in every case, and of other losses, whose values in the cases are given."""
    runs = []
    for name, values in {"dice_ce": [0.5] * len(SUBJECTS), **others}.items():
        told = {"bundle": "b", "loss_name": name, "loss_args": {}, "network_name": "unet", "split": "test"}
        columns = dict.fromkeys(results.COLUMNS, values)
        runs.append({**told, "posthoc": "", "seed": 0, "train_seconds": 1, "values": columns})
    return dict(results.figures_of({"cases": SUBJECTS, "subjects": SUBJECTS, "runs": runs}))


def test_a_change_is_starred_where_its_corrected_p_is_small(results: ModuleType) -> None:
    """Eight differences of one sign have an exact p of 2 / 2^8; Holm multiplies the least of n by n."""
    lower = [0.4 - 0.01 * number for number in range(8)]
    mixed = [0.5 + (-1) ** number * 0.01 * (number + 1) for number in range(8)]
    few = part(results, {"lower": lower, "mixed": mixed})
    assert {change["method"]: change["p"]["nll_all"] for change in few["changes"]}["`lower`"] == round(2 / 2**8, 5)
    first, second = results.change_table(few, "`dice_ce`", ["nll_all"]).splitlines()[2:]
    assert first.startswith("| `lower` | 1 | -27\\* <small>-3")
    assert "`mixed`" in second
    assert "\\*" not in second
    # 6 x 2 / 2^8 is below 0.05, 7 x 2 / 2^8 above.
    for count, starred in ((6, True), (7, False)):
        many = part(results, {f"lower{number}": [value + number / 1000 for value in lower] for number in range(count)})
        assert ("\\*" in results.change_table(many, "`dice_ce`", ["nll_all"])) is starred


def test_figures_kept_without_cases_have_no_star(results: ModuleType) -> None:
    kept = part(results, {"lower": [0.1] * 8})
    for change in kept["changes"]:
        del change["p"]
    assert "\\*" not in results.change_table(kept, "`dice_ce`", ["nll_all"])
