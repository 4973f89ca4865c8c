"""What the study on ``auto`` claims is true of the figures it is made from."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module("auto_correction")


def test_auto_never_made_a_network_worse() -> None:
    for name, run in json.loads((STUDIES / "auto_correction.json").read_text()).items():
        nll = {candidate: sum(of["nll_all"]) for candidate, of in run["figures"].items()}
        assert nll[run["auto"]["chosen"]] <= 1.01 * nll["none"], name


def test_no_network_of_the_pages_on_losses_got_worse_in_what_is_chosen_by(study: ModuleType) -> None:
    every = study.trainings()
    assert len(every) > 60
    for training in every:
        assert study.change(training, "nll_all") <= 1, training
        assert study.change(training, "ece_all_15bins") <= 1, training


def test_a_network_counts_once_however_many_pages_show_it(study: ModuleType) -> None:
    keys = [(each["data"], each["loss"], json.dumps(each["before"])) for each in study.trainings()]
    assert len(keys) == len(set(keys))
