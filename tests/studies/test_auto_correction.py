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
    """Three seeds of Dice + CE on the heart in 2D and of 10 epochs on the hippocampus, which two parts each show."""
    of_dice_ce = [(each["data"], each["seed"]) for each in study.trainings() if each["loss"] == "`dice_ce`"]
    assert [seed for data, seed in sorted(of_dice_ce) if data == "heart in 2D"] == [0, 1, 2]
    # and one of 40 epochs, and one of another network
    assert [seed for data, seed in sorted(of_dice_ce) if data == "hippocampus in 3D"] == [0, 0, 0, 1, 2]


def test_the_front_page_says_the_same(study: ModuleType) -> None:
    every = study.trainings()
    worse = [
        sum(study.change(each, f"ece_{part}_15bins") > 0 for each in every) for part in ("foreground", "boundary2mm")
    ]
    lower = sum(study.change(each, "nll_all") < 0 for each in every)
    readme = (STUDIES.parent / "README.md").read_text(encoding="utf-8")
    assert f"raised the test NLL of none of {len(every)} networks, and lowered that of {lower};" in readme
    assert f"ECE of the true foreground rose in {worse[0]}, of the band around boundaries in {worse[1]} (" in readme
    assert f"In NLL none of {len(every)} networks" in (STUDIES / "README.md").read_text(encoding="utf-8")
