"""Methods that are not linear: temperature by distance and by place, isotonic regression, histogram binning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import all_voxels, draw, drawn_cases
from scipy.ndimage import distance_transform_edt
from scipy.optimize import isotonic_regression, minimize

from monai_calib.metrics.bins import fine_edges
from monai_calib.metrics.histogram import Bins
from monai_calib.posthoc import (
    BoundaryTemperature,
    Calibrator,
    HistogramBinning,
    IsotonicRegression,
    LocalTemperature,
    LogitCase,
    TemperatureScaling,
    fit,
)
from monai_calib.posthoc.boundary import distance_to_boundary, knot_weights
from monai_calib.posthoc.isotonic import pool_adjacent_violators


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 2.5), (1.0, 2.0, 1.5)])
def test_distances_are_those_of_an_exact_transform(spacing: tuple[float, ...]) -> None:
    rng = np.random.default_rng(0)
    predicted = rng.integers(0, 3, [6] * len(spacing)).repeat(3, 0).repeat(2, 1)
    expected = np.zeros(predicted.shape)
    for k in range(3):
        expected += distance_transform_edt(predicted == k, sampling=spacing)
    expected = np.minimum(expected, 4.0) * np.where(predicted == 0, -1, 1)
    found = distance_to_boundary(torch.from_numpy(predicted)[None], 3, list(spacing), 4.0)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def ball_cases(count: int = 2, size: int = 24) -> list[LogitCase]:
    """Over-confident near the surface of a ball (T = 3), right far from it (T = 1)."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.arange(size) - (size - 1) / 2
    radius = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).square().sum(0).sqrt()
    cases = []
    for i in range(count):
        inside = (8 - radius).clamp(-3, 3) + 0.7 * torch.randn(radius.shape, generator=generator)
        logits = torch.stack([torch.zeros_like(inside), inside])
        true = logits / torch.where((radius - 8).abs() < 2.0, 3.0, 1.0)
        cases.append(LogitCase(str(i), logits, draw(true, generator), image=radius[None] / 8, spacing=(1.0, 1.0, 1.0)))
    return cases


def weights_of(case: LogitCase, knots: tuple[float, ...]) -> torch.Tensor:
    reach = max(abs(knots[0]), abs(knots[-1]))
    predicted = case.logits.argmax(0)[None]
    return knot_weights(distance_to_boundary(predicted, len(case.logits), list(case.spacing), reach)[0], knots)


def mean_nll(calibrator: Calibrator, cases: list[LogitCase]) -> float:
    total = count = 0.0
    for case in cases:
        image = None if case.image is None else case.image[None]
        logits = calibrator.apply(case.logits[None], image)
        total += float(torch.nn.functional.cross_entropy(logits.double(), case.label[None], reduction="sum"))
        count += case.label.numel()
    return total / count


def test_temperature_by_distance_is_the_optimum_of_its_likelihood() -> None:
    cases = ball_cases()
    by_distance, one = BoundaryTemperature(2, knots=(-4, -1, 1, 4)), TemperatureScaling(2, "all")
    fit([by_distance, one], cases)
    assert by_distance.record.status == "converged"
    assert mean_nll(by_distance, cases) < mean_nll(one, cases) - 1e-3
    weights = torch.cat([weights_of(case, by_distance.knots).flatten(1) for case in cases], 1).double()
    torch.testing.assert_close(weights.sum(0), torch.ones(weights.shape[1]).double())
    logits, label = all_voxels(cases)

    def objective(beta: np.ndarray) -> tuple[float, np.ndarray]:
        leaf = torch.tensor(beta, requires_grad=True)
        value = torch.nn.functional.cross_entropy((leaf @ weights)[:, None] * logits, label)
        value.backward()
        return value.item(), leaf.grad.numpy()

    best = minimize(objective, np.ones(4), jac=True, method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose([1 / t for t in by_distance.temperatures().values()], best.x, rtol=1e-3)
    assert mean_nll(by_distance, cases) == pytest.approx(best.fun, abs=1e-7)


def test_temperature_by_distance_names_cases_of_other_or_unknown_voxel_size() -> None:
    case = ball_cases(1)[0]
    other = LogitCase("thick", case.logits, case.label, spacing=(1.0, 1.0, 3.0))
    with pytest.raises(ValueError, match="case thick: voxels of"):
        fit([BoundaryTemperature(2)], [case, other])
    with pytest.raises(ValueError, match="case bare: distances in mm need the voxel spacing"):
        fit([BoundaryTemperature(2)], [LogitCase("bare", case.logits, case.label)])


@pytest.mark.parametrize("dims", [2, 3])
def test_local_temperature_learns_what_the_image_tells(dims: int) -> None:
    generator = torch.Generator().manual_seed(0)
    cases = []
    for i in range(4):
        logits = 4 * torch.randn(3, *[16] * dims, generator=generator)
        image = torch.zeros(1, *[16] * dims)
        image[:, 8:] = 1.0  # where it is bright the network is over-confident
        label = draw(logits / (1 + 3 * image), generator)
        cases.append(LogitCase(str(i), logits, label, image))
    local = LocalTemperature(3, "all", epochs=25 if dims == 2 else 8, learning_rate=0.03)
    one = TemperatureScaling(3, "all")
    fit([local, one], cases)
    assert mean_nll(local, cases) < mean_nll(one, cases) - 0.02
    temperature = local.head.temperature(cases[0].logits[None], cases[0].image[None])[0, 0]
    assert temperature[10:].mean() > 1.5 * temperature[:6].mean()


def test_local_temperature_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="case 0: the local temperature needs the image"):
        fit([LocalTemperature(3, "all")], [LogitCase("0", drawn_cases(1)[0].logits, drawn_cases(1)[0].label)])
    with pytest.raises(ValueError, match=r"apply\(logits, image\)"):
        LocalTemperature(3).apply(torch.zeros(1, 3, 4, 4))


def test_pooled_blocks_are_those_of_scipy() -> None:
    generator = torch.Generator().manual_seed(0)
    edges = fine_edges(60).double()
    count = torch.randint(200_000, 300_000, (len(edges) - 1,), generator=generator)
    middle = (edges[1:] + edges[:-1]) / 2
    hits = (count * (middle + 0.2 * torch.randn(len(middle), generator=generator)).clamp(0.01, 0.99)).long()
    mean, accuracy = pool_adjacent_violators(Bins(edges, count, hits, count * middle))
    expected = isotonic_regression((hits / count).numpy(), weights=count.double().numpy())
    np.testing.assert_allclose(accuracy, expected.x[expected.blocks[:-1]], atol=1e-5)
    assert (mean.diff() > 0).all()


@pytest.mark.parametrize("kind", [HistogramBinning, IsotonicRegression])
def test_maps_undo_a_distortion_of_two_classes(kind: type) -> None:
    generator = torch.Generator().manual_seed(0)
    true = 2 * torch.randn(1, 300, 300, generator=generator)
    true = torch.cat([torch.zeros_like(true), true])
    case = LogitCase("a", 2.5 * true + torch.tensor([0.0, 1.0]).view(2, 1, 1), draw(true, generator))
    calibrator = kind(2, "all")
    fit([calibrator], [case])
    probability = calibrator.apply(case.logits[None]).exp()[0]
    torch.testing.assert_close(probability.sum(0), torch.ones(300, 300))
    error = (probability[1] - true.softmax(0)[1]).abs().mean()
    raw = (case.logits.softmax(0)[1] - true.softmax(0)[1]).abs().mean()
    assert error < (0.015 if kind is IsotonicRegression else 0.05) < raw
    assert mean_nll(calibrator, [case]) < calibrator.record.nll_before
