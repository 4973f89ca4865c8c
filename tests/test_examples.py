"""Examples that users copy run.

``docs/examples/lightning.py`` needs Lightning and runs in ``tests/consumers/lightning``.
"""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


@pytest.mark.slow
def test_plain_pytorch_trains_and_measures() -> None:
    example = runpy.run_path(str(EXAMPLES / "plain_pytorch.py"))
    history = example["train"](epochs=3, device="cpu")
    assert [set(epoch) for epoch in history] == [{"loss", "ece", "classwise_ece"}] * 3
    assert history[-1]["loss"] < history[0]["loss"]
    assert all(0 <= epoch["ece"] <= 1 for epoch in history)
