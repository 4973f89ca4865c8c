"""The guarantee of conformal risk control, by closed form and by simulation."""

from __future__ import annotations

import pytest
import torch

from monai_calib.clinical import FalseNegativeControl, TooFewSubjectsWarning, conformal_threshold
from monai_calib.posthoc import LogitCase


def simulated_case(generator: torch.Generator, voxels: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Cases of differing difficulty, with a network that is anything but calibrated."""
    skill = 3 * torch.rand(1, generator=generator)
    label = (torch.rand(voxels, generator=generator) < 0.4).long()
    label[0] = 1
    score = torch.randn(voxels, generator=generator) + skill * (2 * label - 1)
    p = (2 * score).sigmoid()
    return torch.stack([1 - p, p]), label


@pytest.mark.parametrize(("limit", "cases"), [(0.1, 9), pytest.param(0.1, 30, marks=pytest.mark.slow), (0.3, 5)])
def test_expected_false_negative_rate_of_the_next_case_is_within_the_limit(limit: float, cases: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rates = []
    for _ in range(300):
        control = FalseNegativeControl(2, limit)
        for _ in range(cases):
            control.update(*simulated_case(generator))
        control.fit()
        probability, label = simulated_case(generator)
        missed = ~control.keep(probability)[0] & (label == 1)
        rates.append(float(missed.sum() / (label == 1).sum()))
    measured = torch.tensor(rates)
    error = float(measured.std() / len(rates) ** 0.5)
    assert float(measured.mean()) <= limit + 2.5 * error
    # The guarantee is not bought by keeping everything: it lies within 2 / (n + 1) of the limit.
    assert float(measured.mean()) >= limit - 2 / (cases + 1) - 2.5 * error


def test_the_threshold_is_the_last_of_the_grid_within_the_limit() -> None:
    losses = (torch.arange(11) / 10).repeat(4, 1)
    # (4 R + 1) / 5 <= 0.5 for R <= 0.375, on the grid 0.3
    assert conformal_threshold(losses, 0.5).threshold == pytest.approx(0.3)
    assert conformal_threshold(losses, 0.2) == (0.0, 0.0, 4, True)
    assert not conformal_threshold(losses, 0.19).possible


def test_kept_voxels_of_the_fit_have_the_reported_rate() -> None:
    generator = torch.Generator().manual_seed(1)
    cases = [simulated_case(generator) for _ in range(20)]
    control = FalseNegativeControl(2, 0.2)
    for case in cases:
        control.update(*case)
    control.fit()
    missed = [float((~control.keep(p)[0] & (y == 1)).sum() / (y == 1).sum()) for p, y in cases]
    assert sum(missed) / len(missed) == pytest.approx(control.thresholds[0].risk)
    again = FalseNegativeControl.from_json(control.to_json())
    assert again.thresholds == control.thresholds
    assert torch.equal(again.keep(cases[0][0]), control.keep(cases[0][0]))


def test_too_few_cases_keep_every_voxel_and_say_how_many_are_needed() -> None:
    control = FalseNegativeControl(3, 0.1, ["background", "liver", "tumour"])
    probability = torch.rand(3, 5, 5).softmax(0)
    cases = [LogitCase(str(i), probability.log(), torch.ones(5, 5)) for i in range(9)]
    with pytest.warns(TooFewSubjectsWarning, match="tumour: held by 0 validation subjects.*fewer than 9"):
        control.fit(cases)
    assert control.thresholds[0].possible
    assert control.keep(probability)[1].all()


def test_wrong_input_is_refused() -> None:
    control = FalseNegativeControl(2)
    with pytest.raises(ValueError, match="apply softmax"):
        control.update(torch.tensor([[5.0], [-5.0]]), torch.zeros(1))
    with pytest.raises(ValueError, match="apply softmax"):
        control.update(torch.tensor([[0.5], [float("nan")]]), torch.zeros(1))
    with pytest.raises(ValueError, match="expected a label with the grid"):
        control.update(torch.full((2, 3), 0.5), torch.zeros(4))
    with pytest.raises(RuntimeError, match="call fit"):
        control.keep(torch.full((2, 3), 0.5))
    with pytest.raises(ValueError, match="between 0 and 1"):
        FalseNegativeControl(2, 1.5)


def test_two_volumes_of_a_subject_count_as_one() -> None:
    generator = torch.Generator().manual_seed(3)
    cases = [simulated_case(generator) for _ in range(12)]
    twice, once = FalseNegativeControl(2, 0.2), FalseNegativeControl(2, 0.2)
    for number, case in enumerate(cases):
        twice.update(*case, subject=str(number))
        twice.update(*case, subject=str(number))
        once.update(*case)
    twice.fit()
    once.fit()
    assert twice.thresholds == once.thresholds
    assert twice.thresholds[0].cases == 12
