"""What is kept of averaged predictions is consistent."""

from __future__ import annotations

import json
from pathlib import Path

STUDIES = Path(__file__).parents[2] / "studies"


def test_intervals_hold_their_values_and_one_network_does_not_differ_from_itself() -> None:
    for row in json.loads((STUDIES / "ensembles.json").read_text(encoding="utf-8")):
        assert row["subjects"] == 44
        for value, low, high in [*row["figures"].values(), *row["change"].values()]:
            assert low <= value <= high
        if row["way"] == "one network":
            assert all(value == [0, 0, 0] for value in row["change"].values())
