"""CRaC and CALS: the penalty-Lagrangian functions, the constraints, the state."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import generic_filter

from monai_calib.losses import CALSLoss, CRaCLoss, MbLSLoss, NACLLoss, build_loss
from monai_calib.losses.lagrangian import PENALTY_LAGRANGIANS

FUNCTIONS = list(PENALTY_LAGRANGIANS)


def reference(name: str, h: float, m: float, rho: float) -> float:
    """The functions as Birgin et al. write them, number by number."""
    if name == "phr":
        return (max(0.0, m + rho * h) ** 2 - m**2) / (2 * rho)
    if h < 0:
        return m * h / (1 - rho * h)
    return m * h + m * rho * h**2 + (rho**2 * h**3 / 6 if name == "p2" else 0.0)


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(deadline=None, max_examples=40)
@given(h=st.floats(-20, 20), m=st.floats(1e-6, 10), rho=st.floats(0.05, 10))
def test_penalty_functions_and_their_slopes(name: str, h: float, m: float, rho: float) -> None:
    point = torch.tensor(h, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor(m, dtype=torch.float64), torch.tensor(rho, dtype=torch.float64)
    value = PENALTY_LAGRANGIANS[name].value(point, *weights)
    assert value.item() == pytest.approx(reference(name, h, m, rho), rel=1e-9, abs=1e-12)
    (slope,) = torch.autograd.grad(value, point)
    torch.testing.assert_close(PENALTY_LAGRANGIANS[name].slope(point.detach(), *weights), slope)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_penalty_functions_have_the_multiplier_as_slope_at_zero(name: str) -> None:
    # the axiom that makes the update of the multipliers a fixed point where a constraint holds with equality
    zero, m, rho = torch.tensor(0.0), torch.tensor(0.7), torch.tensor(2.0)
    assert PENALTY_LAGRANGIANS[name].value(zero, m, rho).item() == 0
    assert PENALTY_LAGRANGIANS[name].slope(zero, m, rho).item() == pytest.approx(0.7)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_crac_equals_a_voxel_by_voxel_computation(axes: int, name: str) -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(1, 3, *[5] * axes, dtype=torch.float64)
    label = torch.zeros(1, *[5] * axes, dtype=torch.long)
    label[(0, slice(1, 4), *[slice(0, 3)] * (axes - 1))] = 2
    loss = CRaCLoss(margin=4.0, penalty_function=name, num_classes=3)
    loss.penalty.multiplier.copy_(torch.rand(2, 3))
    loss.penalty.rho.copy_(0.1 + torch.rand(2, 3))

    arguments = {"size": 3, "mode": "nearest", "output": np.float64}
    values = label[0].numpy()
    spread = generic_filter(values, lambda patch: patch.max() - patch.min(), **arguments)
    total = 0.0
    for k in range(3):
        tau = generic_filter((values == k).astype(float), np.mean, **arguments)
        for at in np.ndindex(*values.shape):
            outer = int(spread[at] > 0)
            h = abs((tau[at] if outer else 4.0 * tau[at]) - logits[(0, k, *at)].item())
            m, rho = loss.penalty.multiplier[outer, k].item(), loss.penalty.rho[outer, k].item()
            total += reference(name, h, m, rho)
    # over voxels and the 2K constraints, one a class and region
    expected = F.cross_entropy(logits, label).item() + total / (2 * logits.numel())
    assert loss(logits, label).item() == pytest.approx(expected, rel=1e-6)  # the weights are float32


def test_crac_with_margin_one_and_equal_multipliers_is_nacl_plus_a_square() -> None:
    # PHR at h >= 0 is m h + rho h^2 / 2
    logits, label = torch.randn(2, 3, 6, 7, dtype=torch.float64), torch.randint(0, 3, (2, 6, 7))
    ce = F.cross_entropy(logits, label)
    l1 = NACLLoss(alpha=1.0)(logits, label) - ce
    l2 = NACLLoss(alpha=1.0, distance_type="l2")(logits, label) - ce
    loss = CRaCLoss(margin=1.0, multiplier=0.3, rho=0.5)(logits, label)
    torch.testing.assert_close(loss, ce + (0.3 * l1 + 0.25 * l2) / 2)


def test_crac_is_the_authors_mean_over_inner_and_outer_channels() -> None:
    # 5 x 5, all label 0, logits 0: inner h = 5 for class 0, PHR 0.1 * 5^2 / 2 = 1.25, one of four channels
    logits, label = torch.zeros(1, 2, 5, 5, dtype=torch.float64), torch.zeros(1, 5, 5, dtype=torch.long)
    penalty = CRaCLoss(num_classes=2)(logits, label) - F.cross_entropy(logits, label)
    assert penalty.item() == pytest.approx(0.3125, rel=1e-4)  # the first multiplier is 1e-6, not 0


def test_cals_with_steep_rho_and_no_multiplier_is_squared_mbls() -> None:
    # PHR as m -> 0 is rho relu(h)^2 / 2, and h = (d - margin) / margin
    logits, label = 4 * torch.randn(2, 3, 6, 7, dtype=torch.float64), torch.randint(0, 3, (2, 6, 7))
    expected = MbLSLoss(margin=2.0, distance_type="l2", alpha=0.5 * 3.0 / 2.0**2)(logits, label)
    torch.testing.assert_close(CALSLoss(margin=2.0, multiplier=1e-12, rho=3.0)(logits, label), expected)


@pytest.mark.parametrize("name", ["crac", "cals"])
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("axes", [2, 3])
def test_gradcheck_with_weights_that_matter(name: str, function: str, axes: int) -> None:
    torch.manual_seed(1)
    logits = (3 * torch.randn(1, 3, *[3] * axes, dtype=torch.float64)).requires_grad_()
    label = torch.randint(0, 2, (1, 1, *[3] * axes)) * 2
    loss = build_loss(name, penalty_function=function, multiplier=0.4, rho=1.5, margin=1.5)
    assert torch.autograd.gradcheck(lambda x: loss(x, label), (logits,))


def test_classes_come_from_the_first_batch_or_the_constructor() -> None:
    lazy, eager = CRaCLoss(), CRaCLoss(num_classes=3)
    logits, label = torch.randn(1, 3, 6, 6), torch.randint(0, 3, (1, 1, 6, 6))
    torch.testing.assert_close(lazy(logits, label), eager(logits, label))
    assert lazy.penalty.multiplier.shape == (2, 3)
    assert {name: tuple(value.shape) for name, value in lazy.state_dict().items()} == {
        "penalty.multiplier": (2, 3),
        "penalty.rho": (2, 3),
        "penalty.last_constraint": (2, 3),
        "penalty.updates": (),
    }


@pytest.mark.parametrize("name", ["crac", "dice_ce+cals", "crac+mdca"])
def test_state_loads_into_a_loss_that_has_seen_no_batch(name: str) -> None:
    trained = build_loss(name, num_classes=4)
    for key, value in trained.state_dict().items():
        if "updates" not in key:
            value.copy_(torch.rand(value.shape) + 0.1)
    fresh = build_loss(name)
    fresh.load_state_dict(copy.deepcopy(trained.state_dict()))
    logits, label = torch.randn(1, 4, 6, 6), torch.randint(0, 4, (1, 1, 6, 6))
    assert torch.equal(fresh(logits, label), trained(logits, label))
    with pytest.raises(RuntimeError, match="size mismatch"):
        build_loss(name, num_classes=3).load_state_dict(trained.state_dict())


def test_sums_are_those_of_the_known_voxels_of_each_region() -> None:
    loss = CRaCLoss(multiplier=0.2, rho=0.5, num_classes=2)
    label = torch.zeros(1, 1, 8)
    label[..., 4:] = 1
    label[..., 6:] = 9
    # voxels 3 and 4 have two labels in their window; 0, 1, 2 and 5 one; 6 and 7 are not known
    sums = loss.penalty.sums(torch.zeros(1, 2, 8), label, ignore_index=9)
    assert sums.voxels.flatten().tolist() == [4, 2]
    # inner: tau is 1 for class 0 thrice, for class 1 once; h = 5 there and 0 for the other class
    torch.testing.assert_close(sums.constraint[0], torch.tensor([15.0, 5.0], dtype=torch.float64))
    torch.testing.assert_close(sums.constraint[1], torch.tensor([1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(sums.slope, 0.2 * sums.voxels + 0.5 * sums.constraint)


def test_phr_never_rewards_more_than_the_multiplier_allows() -> None:
    # the least value of the penalty is -m^2 / (2 rho), reached where the constraint is kept with room to spare
    logits = torch.zeros(1, 2, 4)
    loss = CALSLoss(margin=5.0, multiplier=0.3, rho=1.0, num_classes=2)(logits, torch.zeros(1, 1, 4))
    assert loss.item() == pytest.approx(math.log(2) - 0.3**2 / 2)
