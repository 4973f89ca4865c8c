"""A correction by class and distance: its optimum, and what follows from being there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import draw
from scipy.optimize import minimize

from monai_calib.posthoc import BoundaryTemperature, BoundaryVector, Calibrator, CalibratorWarning, LogitCase, fit
from monai_calib.posthoc.boundary import distance_to_boundary, knot_weights

KNOTS = (-3.0, -1.0, 1.0)


def ball_cases(count: int = 2, size: int = 14, classes: int = 3) -> list[LogitCase]:
    """A ball whose true surface is farther out than the network's, in one half of another class."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.arange(size) - (size - 1) / 2
    grid = torch.meshgrid(axis, axis, axis, indexing="ij")
    radius = torch.stack(grid).square().sum(0).sqrt()
    cases = []
    for number in range(count):
        inside = (4.5 - radius).clamp(-3, 3) + torch.randn(radius.shape, generator=generator)
        logits = torch.stack([torch.zeros_like(inside), inside + grid[0] / 4, inside - grid[0] / 4])[:classes]
        shift = torch.tensor([0.0, 1.0, 0.5])[:classes].view(-1, 1, 1, 1) * (radius - 4.5).abs().lt(2)
        label = draw(0.5 * logits + shift, generator)
        cases.append(LogitCase(str(number), logits, label, spacing=(1.0, 1.0, 1.0)))
    return cases


def weights_of(case: LogitCase) -> torch.Tensor:
    distance = distance_to_boundary(case.logits.argmax(0)[None], len(case.logits), [1.0, 1.0, 1.0], 3.0)[0]
    return knot_weights(distance, KNOTS)


def mean_nll(calibrator: Calibrator, cases: list[LogitCase]) -> float:
    losses = [
        torch.nn.functional.cross_entropy(calibrator.apply(case.logits[None]), case.label[None], reduction="none")
        for case in cases
    ]
    return float(torch.cat(losses).double().mean())


def test_newton_ends_where_bfgs_ends() -> None:
    cases = ball_cases()
    calibrator = BoundaryVector(3, knots=KNOTS)
    fit([calibrator], cases)
    logits = torch.cat([case.logits.flatten(1) for case in cases], 1).double()
    weight = torch.cat([weights_of(case).flatten(1) for case in cases], 1).double()
    label = torch.cat([case.label.flatten() for case in cases])

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        leaf = torch.tensor(theta, requires_grad=True)
        w, b = leaf.view(2, 3, len(KNOTS))
        value = torch.nn.functional.cross_entropy(((w @ weight) * logits + b @ weight).T, label)
        value.backward()
        return value.item(), leaf.grad.numpy()

    start = np.concatenate([np.ones(9), np.zeros(9)])
    best = minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-7})
    assert calibrator.record.status == "converged"
    assert mean_nll(calibrator, cases) <= best.fun + 1e-5


def test_probabilities_add_up_to_the_voxels_of_each_class_around_each_knot() -> None:
    cases = ball_cases()
    calibrator = BoundaryVector(3, knots=KNOTS)
    fit([calibrator], cases)
    expected, counted = torch.zeros(3, len(KNOTS)), torch.zeros(3, len(KNOTS))
    for case in cases:
        weight = weights_of(case).flatten(1)
        expected += calibrator.apply(case.logits[None])[0].softmax(0).flatten(1) @ weight.T
        counted += torch.nn.functional.one_hot(case.label.flatten(), 3).T.float() @ weight.T
    torch.testing.assert_close(expected, counted, rtol=2e-3, atol=0.5)


def test_it_fits_at_least_as_well_as_its_special_case() -> None:
    cases = ball_cases()
    general, special = BoundaryVector(3, knots=KNOTS), BoundaryTemperature(3, knots=KNOTS)
    fit([general, special], cases)
    assert mean_nll(general, cases) < mean_nll(special, cases) - 1e-3


def test_a_class_without_labels_stays_and_nothing_is_nan() -> None:
    cases = ball_cases(1)
    cases = [LogitCase("0", case.logits, case.label.clamp(max=1), spacing=(1.0, 1.0, 1.0)) for case in cases]
    calibrator = BoundaryVector(3, knots=KNOTS)
    with pytest.warns(CalibratorWarning):
        fit([calibrator], cases)
    state = calibrator.head.state_dict()
    assert all(bool(value.isfinite().all()) for value in state.values())
    assert torch.equal(state["bias"][2], torch.zeros(len(KNOTS)))


def test_json_and_torchscript_compute_the_same() -> None:
    cases = ball_cases(1)
    calibrator = BoundaryVector(3, knots=KNOTS)
    fit([calibrator], cases)
    logits = cases[0].logits[None]
    expected = calibrator.apply(logits)
    assert torch.equal(Calibrator.from_json(calibrator.to_json()).apply(logits), expected)
    scripted = torch.jit.script(calibrator.head)
    torch.testing.assert_close(scripted(logits, None), expected)
    smaller = logits[..., 2:, 1:, :-3]
    torch.testing.assert_close(scripted(smaller, None), calibrator.apply(smaller))
