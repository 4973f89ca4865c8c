"""What is kept of the study of failure detection is consistent."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

STUDIES = Path(__file__).parents[2] / "studies"


def test_orders_lie_between_perfect_and_worst_and_flags_hold_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))
    study = importlib.import_module("failure")
    kept = json.loads(study.KEPT.read_text(encoding="utf-8"))
    for name, row in kept.items():
        subjects = [{case["subject"] for case in row["cases"]["none"][split]} for split in ("validation", "test")]
        assert not subjects[0] & subjects[1]
        for state in study.STATES:
            found = study.detection(row, state, "expected_dice")
            risks = np.array([1 - case["dice"] for case in row["cases"][state]["test"]])
            worst = np.sort(risks)[::-1].cumsum() / np.arange(1, len(risks) + 1)
            assert found.perfect_aurc.value <= found.aurc.value <= worst.mean()
            for interval in found:
                assert interval.low <= interval.high
            for low, value, high in ((v[1], v[0], v[2]) for k, v in row["voxels"][state].items() if k != "voxels"):
                assert low <= value <= high
        for rate in study.MISS_RATES:
            flag = study.flag(row, name, rate)
            possible = flag["subjects"] >= round(1 / rate) - 1
            assert possible == np.isfinite(flag["threshold"])
            assert possible or (flag["missed"] == 0 and flag["flagged"] == flag["good"])
