"""Fits end where an independent minimiser of the exact likelihood ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from cases import all_voxels, draw, drawn_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar

from monai_calib.posthoc import (
    Calibrator,
    CalibratorWarning,
    ClasswiseTemperature,
    DirichletScaling,
    LogitCase,
    MatrixScaling,
    TemperatureScaling,
    VectorScaling,
    fit,
)


def exact_temperature(cases: list[LogitCase], region: str) -> float:
    logits, label = all_voxels(cases, region)

    def nll(log_t: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / math.exp(log_t), label))

    return math.exp(
        minimize_scalar(nll, bounds=(math.log(0.05), math.log(20)), method="bounded", options={"xatol": 1e-9}).x
    )


@pytest.mark.parametrize("region", ["all", "foreground", "union", "boundary:1mm"])
def test_temperature_is_the_optimum_of_the_exact_likelihood_in_its_region(region: str) -> None:
    cases = drawn_cases()
    scaling = TemperatureScaling(3, region)
    fit([scaling], cases)
    assert scaling.temperature == pytest.approx(exact_temperature(cases, region), rel=1e-5)
    assert (scaling.record.status, scaling.record.passes) == ("converged", 2)
    assert scaling.record.voxels == len(all_voxels(cases, region)[1])


@settings(max_examples=20, deadline=None)
@given(temperature=st.floats(0.1, 10), classes=st.integers(2, 6), seed=st.integers(0, 1000))
def test_any_temperature_is_found_in_few_passes(temperature: float, classes: int, seed: int) -> None:
    cases = drawn_cases(1, classes, 9, temperature, seed)
    scaling = TemperatureScaling(classes, "all")
    fit([scaling], cases)
    if scaling.record.status == "converged":
        assert scaling.temperature == pytest.approx(exact_temperature(cases, "all"), rel=1e-4)
        assert scaling.record.passes <= 3


def exact_linear(cases: list[LogitCase], calibrator: MatrixScaling | VectorScaling) -> float:
    """Value of the penalised likelihood at the optimum that BFGS finds."""
    logits, label = all_voxels(cases)
    if isinstance(calibrator, DirichletScaling):
        logits = logits.log_softmax(1)
    free = calibrator.free_parameters()

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.zeros(free.shape, dtype=torch.float64)
        leaf = torch.tensor(theta, requires_grad=True)
        parameters[free] = leaf
        value = penalised(parameters, calibrator, logits, label)
        value.backward()
        return value.item(), leaf.grad.numpy()

    start = torch.eye(*free.shape, dtype=torch.float64)[free].numpy()
    return float(minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-9}).fun)


def penalised(
    parameters: torch.Tensor, calibrator: Calibrator, logits: torch.Tensor, label: torch.Tensor
) -> torch.Tensor:
    weight, bias = parameters[:, :-1], parameters[:, -1]
    value = torch.nn.functional.cross_entropy(logits @ weight.T + bias, label)
    if isinstance(calibrator, MatrixScaling):
        k = len(bias)
        off = weight[~torch.eye(k, dtype=torch.bool)]
        value = value + calibrator.off_diagonal * off.square().sum() / (k * (k - 1))
        value = value + calibrator.intercept * bias.square().sum() / k
    return value


@pytest.mark.parametrize("kind", [ClasswiseTemperature, VectorScaling, MatrixScaling, DirichletScaling])
def test_newton_ends_where_bfgs_ends(kind: type) -> None:
    generator = torch.Generator().manual_seed(1)
    mixing = torch.tensor([[0.6, 0.1, 0.0], [0.0, 0.3, 0.0], [-0.1, 0.0, 0.9]])
    cases = []
    for i in range(3):
        logits = 3 * torch.randn(3, 10, 10, 10, generator=generator)
        true = torch.einsum("kj,jxyz->kxyz", mixing, logits) + torch.tensor([0.5, 0.0, -0.3]).view(3, 1, 1, 1)
        cases.append(LogitCase(str(i), logits, draw(true, generator)))
    calibrator = kind(3, region="all")
    fit([calibrator], cases)
    assert calibrator.record.status == "converged"
    assert calibrator.record.passes <= 9
    parameters = torch.cat([calibrator.head.weight, calibrator.head.bias[:, None]], 1).double()
    logits, label = all_voxels(cases)
    if kind is DirichletScaling:
        logits = logits.log_softmax(1)
    assert float(penalised(parameters, calibrator, logits, label)) <= exact_linear(cases, calibrator) + 1e-6


def test_methods_share_their_passes_and_each_ends_as_it_does_alone() -> None:
    cases = drawn_cases(2)
    together = [TemperatureScaling(3), VectorScaling(3, "all"), MatrixScaling(3)]
    fit(together, cases)
    for calibrator in together:
        alone = type(calibrator)(3, str(calibrator.region))
        fit([alone], cases)
        torch.testing.assert_close(calibrator.head.state_dict(), alone.head.state_dict())


def test_temperature_keeps_every_label() -> None:
    scaling = TemperatureScaling(3)
    logits = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    for temperature in (0.05, 0.7, 20.0):
        scaling.set_temperature(temperature)
        assert torch.equal(scaling.apply(logits).argmax(1), logits.argmax(1))


@pytest.mark.parametrize("kind", [TemperatureScaling, VectorScaling, MatrixScaling, DirichletScaling])
def test_a_fit_survives_json(kind: type) -> None:
    calibrator = kind(3, "all")
    fit([calibrator], drawn_cases(1, size=8))
    again = Calibrator.from_json(calibrator.to_json())
    logits = torch.randn(1, 3, 5, 5)
    assert torch.equal(again.apply(logits), calibrator.apply(logits))
    assert again.record == calibrator.record


EVERY = [TemperatureScaling, ClasswiseTemperature, VectorScaling, MatrixScaling, DirichletScaling]


@pytest.mark.parametrize("kind", EVERY)
def test_constant_logits_keep_the_identity_and_say_so(kind: type) -> None:
    cases = [LogitCase("flat", torch.full((3, 6, 6), 1.5), torch.arange(36).reshape(6, 6) % 3)]
    calibrator = kind(3, "all")
    with pytest.warns(CalibratorWarning, match="equal for all classes"):
        fit([calibrator], cases)
    assert calibrator.record.status == "undetermined"
    assert torch.equal(calibrator.head.weight, torch.eye(3))


@pytest.mark.parametrize("kind", EVERY)
def test_separable_logits_end_at_the_bound_and_say_so(kind: type) -> None:
    label = torch.arange(36).reshape(6, 6) % 3
    logits = 5.0 * torch.nn.functional.one_hot(label, 3).movedim(-1, 0)
    calibrator = kind(3, "all")
    with pytest.warns(CalibratorWarning, match="separable"):
        fit([calibrator], [LogitCase("easy", logits, label)])
    assert calibrator.record.status == "at bound"
    assert calibrator.head.weight.isfinite().all()
    assert calibrator.head.weight.diagonal().max() <= 20.01


def test_logits_that_are_always_wrong_end_at_the_other_bound() -> None:
    label = torch.arange(36).reshape(6, 6) % 2
    logits = -5.0 * torch.nn.functional.one_hot(label, 2).movedim(-1, 0).float()
    scaling = TemperatureScaling(2, "all")
    with pytest.warns(CalibratorWarning, match="tell nothing of the labels"):
        fit([scaling], [LogitCase("wrong", logits, label)])
    assert scaling.temperature == pytest.approx(20.0)


@pytest.mark.parametrize("kind", [ClasswiseTemperature, VectorScaling, MatrixScaling, DirichletScaling])
def test_a_class_absent_from_validation_keeps_the_common_temperature(kind: type) -> None:
    cases = drawn_cases(2, 4)
    for case in cases:
        case.label[case.label == 3] = 0
    calibrator, scaling = kind(4, "all"), TemperatureScaling(4, "all")
    with pytest.warns(CalibratorWarning, match="bears class 3"):
        fit([calibrator, scaling], cases)
    assert calibrator.record.absent_classes == (3,)
    assert float(calibrator.head.bias[3]) == 0.0
    assert calibrator.head.state_dict()["weight"].isfinite().all()
    if kind is not DirichletScaling:
        assert 1 / float(calibrator.head.weight[3, 3]) == pytest.approx(scaling.temperature, rel=1e-5)


def test_broken_input_is_named() -> None:
    good = torch.zeros(2, 4, 4)
    with pytest.raises(ValueError, match="case b: the logits hold NaN"):
        LogitCase("b", good / 0, torch.zeros(4, 4))
    with pytest.raises(ValueError, match=r"case b: label: expected whole .* from 0 to 1, got 2, 3, 4, 5, 6, 7"):
        LogitCase("b", good, torch.arange(16).reshape(4, 4).clamp_max(7))
    with pytest.raises(ValueError, match="case b: expected a label with the grid"):
        LogitCase("b", good, torch.zeros(3, 4))
    with pytest.raises(ValueError, match="gave no case"):
        fit([TemperatureScaling(2)], [])
    with pytest.raises(ValueError, match="no voxel of 1 case lies in region union"):
        fit([TemperatureScaling(2, "union")], [LogitCase("b", good, torch.zeros(4, 4))])
    with pytest.raises(ValueError, match="not an iterator"):
        fit([TemperatureScaling(3, "all")], iter(drawn_cases(1)))


def test_ignored_voxels_count_nowhere() -> None:
    case = drawn_cases(1)[0]
    label = case.label.clone()
    label[:6] = 255
    ignoring, cut = TemperatureScaling(3, "all"), TemperatureScaling(3, "all")
    fit([ignoring], [LogitCase("a", case.logits, label, ignore_index=255)])
    fit([cut], [LogitCase("a", case.logits[:, 6:], case.label[6:])])
    assert ignoring.temperature == pytest.approx(cut.temperature, rel=1e-9)
    assert ignoring.record.voxels == cut.record.voxels


def test_a_label_that_is_not_whole_or_no_class_is_refused_and_never_truncated() -> None:
    case = drawn_cases(1)[0]
    for label in (case.label * 0.9999, case.label.double().masked_fill(case.label == 2, float("nan"))):
        with pytest.raises(ValueError, match="case 0: label: expected whole class numbers from 0 to 2"):
            LogitCase("case 0", case.logits, label)
    for value in (255, 7, -1):
        with pytest.raises(ValueError, match=f"case 0: label: .*got {value}"):
            LogitCase("case 0", case.logits, case.label.masked_fill(case.label == 2, value))


@pytest.mark.parametrize("kind", [torch.uint8, torch.uint16, torch.uint64, torch.float32])
def test_a_label_of_any_type_gives_the_same_fit(kind: torch.dtype) -> None:
    found = []
    for cases in (drawn_cases(2), drawn_cases(2)):
        scaling = TemperatureScaling(3, region="all")
        typed = [LogitCase(c.name, c.logits, c.label.to(kind if found else torch.int64)) for c in cases]
        fit([scaling], typed)
        found.append(scaling.temperature)
    assert found[0] == found[1]


def test_ignored_voxels_form_no_boundary() -> None:
    logits = torch.tensor([[-5.0] * 6, [5.0] * 6])[:, None]
    case = LogitCase("a", logits, torch.tensor([[1, 1, 1, 255, 255, 255]]), spacing=(1.0, 1.0), ignore_index=255)
    assert int(case.mask("boundary:2mm").sum()) == 0
    assert int(case.mask("union").sum()) == 3
