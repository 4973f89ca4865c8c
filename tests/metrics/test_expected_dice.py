"""Expected Dice as a metric of a case: the same whichever way it is measured, and right where probabilities are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_calib.clinical import expected_dice
from monai_calib.metrics import CaseEvaluation, Protocol

PROTOCOL = Protocol("mine", ["all", "predicted"], ["ece"])


def case(seed: int = 0, size: tuple[int, ...] = (9, 8, 7)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(3, *size, generator=generator), torch.randint(0, 3, size, generator=generator)


def by_definition(probability: np.ndarray, counted: np.ndarray) -> list[float]:
    """``2 sum_S p / (|S| + sum p)`` with loops over nothing but classes, in double precision."""
    best = probability.argmax(0)
    found = []
    for k in range(1, len(probability)):
        inside = (best == k) & counted
        found.append(2 * probability[k][inside].sum() / (inside.sum() + probability[k][counted].sum()))
    return found


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("ignore_index", [None, 255])
def test_metric_of_a_case_is_the_definition(from_logits: bool, ignore_index: int | None) -> None:
    logits, label = case()
    if ignore_index is not None:
        label[:2] = ignore_index
    probability = logits.double().softmax(0).float()
    expected = by_definition(probability.double().numpy(), (label != 255).numpy())
    evaluation = CaseEvaluation(3, [PROTOCOL], from_logits=from_logits, ignore_index=ignore_index)
    given = logits if from_logits else probability
    assert evaluation.measure(given, label).values["expected_dice"] == pytest.approx(expected, rel=1e-5)
    # drawn from another prediction, regions stay, and the expected Dice is still that of this one
    other = evaluation.measure(given, label, drawn_from=given.roll(1, 1)).values["expected_dice"]
    assert other == pytest.approx(expected, rel=1e-5)
    if ignore_index is None:
        assert expected_dice(probability) == pytest.approx(expected, rel=1e-5)


def test_truth_drawn_from_the_probabilities_has_that_dice_on_average() -> None:
    logits, _ = case(1, (24, 24, 24))
    probability = logits.softmax(0)
    expected = CaseEvaluation(3, [PROTOCOL]).measure(probability, probability.argmax(0)).values["expected_dice"]
    best, generator = probability.argmax(0).flatten(), torch.Generator().manual_seed(0)
    scores = []
    for _ in range(20):
        drawn = torch.multinomial(probability.flatten(1).T, 1, generator=generator)[:, 0]
        scores.append(
            [float(2 * ((best == k) & (drawn == k)).sum() / ((best == k).sum() + (drawn == k).sum())) for k in (1, 2)]
        )
    # 13,824 independent voxels, 20 draws: the mean's standard error is below 0.001
    assert np.mean(scores, axis=0) == pytest.approx(expected, abs=0.004)


def test_nothing_predicted_and_next_to_nothing_expected_is_nan() -> None:
    probability = torch.tensor([0.99, 0.01, 0.0])[:, None, None].expand(3, 4, 4)
    values = CaseEvaluation(3, [PROTOCOL]).measure(probability, torch.zeros(4, 4)).values["expected_dice"]
    assert all(math.isnan(value) for value in values)
    unsure = torch.tensor([0.6, 0.4, 0.0])[:, None, None].expand(3, 4, 4)
    values = CaseEvaluation(3, [PROTOCOL]).measure(unsure, torch.zeros(4, 4)).values["expected_dice"]
    assert values[0] == 0
    assert math.isnan(values[1])


def test_only_where_the_whole_volume_and_the_predicted_foreground_are_measured() -> None:
    assert "expected_dice" in CaseEvaluation(3).metrics
    for regions in (["all"], ["predicted"], ["foreground"]):
        assert "expected_dice" not in CaseEvaluation(3, [Protocol("mine", regions, ["ece"])]).metrics
    assert "expected_dice" not in CaseEvaluation(3, activation="sigmoid").metrics
    assert "expected_dice" not in CaseEvaluation(3, histograms_alone=True).metrics


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_it_is_the_cpus() -> None:
    logits, label = case(2, (20, 20, 20))
    values = [
        CaseEvaluation(3, [PROTOCOL], from_logits=True).measure(logits.to(device), label.to(device)).values
        for device in ("cpu", "cuda")
    ]
    assert values[1]["expected_dice"] == pytest.approx(values[0]["expected_dice"], rel=1e-5)
