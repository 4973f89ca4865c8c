"""The page of the study says what its JSON holds, and what is claimed of it is true there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

STUDIES = Path(__file__).parents[2] / "studies"
sys.path.insert(0, str(STUDIES))

from auto_correction import page  # noqa: E402


def test_the_page_is_made_from_the_results() -> None:
    results = json.loads((STUDIES / "auto_correction.json").read_text())
    assert page(results) == (STUDIES / "auto_correction.md").read_text()


def test_auto_never_made_a_network_worse() -> None:
    for name, run in json.loads((STUDIES / "auto_correction.json").read_text()).items():
        nll = {candidate: sum(of["nll_all"]) for candidate, of in run["figures"].items()}
        assert nll[run["auto"]["chosen"]] <= 1.01 * nll["none"], name
