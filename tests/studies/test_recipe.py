"""What the page of recipes measures of a case, by hand."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch

from monai_calib.metrics import CalibrationHistogram, ece
from monai_calib.posthoc import LogitCase, TemperatureScaling

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture
def recipe_cases(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module("recipe_cases")


def drawn_case(seed: int) -> LogitCase:
    generator = torch.Generator().manual_seed(seed)
    label = torch.zeros(8, 8, 8, dtype=torch.long)
    label[2:6, 2:6, 2:4], label[2:6, 2:6, 4:6] = 1, 2
    logits = 4 * torch.nn.functional.one_hot(label, 3).movedim(-1, 0) + torch.randn(3, 8, 8, 8, generator=generator)
    return LogitCase("a", logits, label, spacing=(1.0, 1.0, 1.0))


def test_an_average_is_one_of_probabilities_and_keeps_the_networks_entropies(recipe_cases: ModuleType) -> None:
    run_logits = importlib.import_module("run_logits")
    members = [run_logits.RunLogits({}, ["a", "b", "c"], [drawn_case(seed)], ["s"]) for seed in range(3)]
    case = recipe_cases.averaged(members).cases[0]
    each = [member.cases[0].logits.softmax(0) for member in members]
    torch.testing.assert_close(case.logits.softmax(0), torch.stack(each).mean(0))
    entropies = [torch.distributions.Categorical(probs.movedim(0, -1)).entropy() for probs in each]
    torch.testing.assert_close(case.data["entropy"], torch.stack(entropies).mean(0))


def test_figures_of_a_case_by_hand(recipe_cases: ModuleType) -> None:
    case = drawn_case(0)
    figures = recipe_cases.figures_of(case, None)
    probability, predicted = case.logits.softmax(0), case.logits.argmax(0)
    true = 64.0
    expected, counted = float(1 - probability[0].mean()) * 512, float((predicted != 0).sum())
    assert figures["volume_excess"] == pytest.approx((abs(expected - true) - abs(counted - true)) / true, rel=1e-5)
    nll = torch.nn.functional.cross_entropy(case.logits[None], case.label[None])
    assert figures["nll_all"] == pytest.approx(float(nll), rel=1e-5)
    dices = [2 * int(((predicted == k) & (case.label == k)).sum()) / (int((predicted == k).sum()) + 32) for k in (1, 2)]
    assert figures["dsc"] == pytest.approx(sum(dices) / 2)


def test_floor_is_what_a_perfect_forecaster_scores(recipe_cases: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    scores, floors = [], []
    for _ in range(60):
        p = torch.rand(3000, generator=generator)
        label = (torch.rand(3000, generator=generator) < p).long()
        hist = CalibrationHistogram(2)
        hist.update(torch.stack([1 - p, p])[None], label[None], from_logits=False)
        scores.append(ece(hist))
        floors.append(recipe_cases.ece_floor(hist))
    assert math.fsum(scores) == pytest.approx(math.fsum(floors), rel=0.05)


def test_own_temperature_is_told_with_its_signs(recipe_cases: ModuleType) -> None:
    run_logits = importlib.import_module("run_logits")
    members = [run_logits.RunLogits({}, ["a", "b", "c"], [drawn_case(seed)], ["s"]) for seed in range(2)]
    case = recipe_cases.averaged(members).cases[0]
    scaling = TemperatureScaling(3)
    scaling.set_temperature(2.0)
    figures = recipe_cases.own_figures_of(case, scaling)
    assert figures["log_temperature"] == pytest.approx(math.log(2))
    assert figures["disagreement"] > 0  # the entropy of a mean is above the mean entropy
    assert figures["volume"] == int((case.logits.argmax(0) != 0).sum())
