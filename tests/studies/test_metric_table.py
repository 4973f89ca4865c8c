"""Our metrics against what other packages computed on the same numbers."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

STUDIES = Path(__file__).parents[2] / "studies"


def test_ours_are_what_other_packages_and_the_formulas_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))
    study = importlib.import_module("metric_table")
    kept = json.loads((STUDIES / "metric_table.json").read_text(encoding="utf-8"))
    assert set(kept["others"]) == set(study.METRICS)
    for name, found in study.ours(study.inputs()).items():
        assert "formula" in kept["others"][name]
        for package, value in kept["others"][name].items():
            tolerance = study.TOLERANCES.get(name, study.LAST_DIGITS)
            assert found[0] == pytest.approx(value, rel=tolerance, abs=tolerance), f"{name}, {package}"
            if len(found) > 1:  # the widths that others stop at, and float32, may lie outside by that much
                assert found[1] - tolerance <= value <= found[2] + tolerance, f"{name}, {package}"
        if len(found) > 1:
            assert found[1] <= kept["others"][name]["formula"] <= found[2], name
