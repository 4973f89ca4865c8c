"""Calibration losses as cross-entropy plus a constraint on the logits: the identities of docs/unifying_view.md."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from monai_calib.losses import build_loss, label_proportions

CLASSES = 4


@pytest.fixture
def logits() -> Tensor:
    torch.manual_seed(0)
    return 3 * torch.randn(2, CLASSES, 5, 6, 3, dtype=torch.float64)


@pytest.fixture
def label() -> Tensor:
    torch.manual_seed(1)
    return torch.randint(0, CLASSES, (2, 5, 6, 3))


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) at every voxel."""
    return (p * (p / q).log()).sum(1)


def test_label_smoothing_is_the_divergence_of_uniform_from_the_prediction(logits: Tensor, label: Tensor) -> None:
    # LS = (1 - a) CE + a KL(u || s) + a log K
    uniform = torch.full_like(logits, 1 / CLASSES)
    kl = divergence(uniform, logits.softmax(1)).mean()
    expected = 0.7 * F.cross_entropy(logits, label) + 0.3 * (kl + math.log(CLASSES))
    torch.testing.assert_close(build_loss("ls", alpha=0.3)(logits, label), expected)


def test_the_confidence_penalty_is_the_divergence_of_the_prediction_from_uniform(logits: Tensor, label: Tensor) -> None:
    # ECP = CE + (a / K) KL(s || u) - (a / K) log K: the other direction
    uniform = torch.full_like(logits, 1 / CLASSES)
    kl = divergence(logits.softmax(1), uniform).mean()
    expected = F.cross_entropy(logits, label) + 0.3 / CLASSES * (kl - math.log(CLASSES))
    torch.testing.assert_close(build_loss("ecp", alpha=0.3)(logits, label), expected)


def test_meep_is_the_same_divergence_where_the_prediction_is_wrong(logits: Tensor, label: Tensor) -> None:
    wrong = logits.argmax(1) != label
    kl = divergence(logits.softmax(1), torch.full_like(logits, 1 / CLASSES))[wrong].mean()
    expected = F.cross_entropy(logits, label) + 0.3 * (kl - math.log(CLASSES))
    torch.testing.assert_close(build_loss("meep", alpha=0.3, form="entropy")(logits, label), expected)


def test_focal_loss_is_at_least_cross_entropy_less_an_entropy(logits: Tensor, label: Tensor) -> None:
    # Mukhoti et al.: focal >= CE - gamma H(s), voxel by voxel
    prob = logits.softmax(1)
    entropy = -(prob * prob.log()).sum(1)
    bound = F.cross_entropy(logits, label, reduction="none") - 3.0 * entropy
    assert (build_loss("focal", gamma=3.0, reduction="none")(logits, label) >= bound - 1e-12).all()


def test_label_smoothing_is_the_linear_penalty_for_equal_logits(logits: Tensor, label: Tensor) -> None:
    # LS = CE + a mean_k (l_y - l_k): the constraint is d = 0, with a slope that never fades
    own = logits.gather(1, label.unsqueeze(1))
    expected = F.cross_entropy(logits, label) + 0.3 * (own - logits).mean()
    torch.testing.assert_close(build_loss("ls", alpha=0.3)(logits, label), expected)


def test_mbls_with_margin_zero_is_label_smoothing_where_the_prediction_is_right(logits: Tensor) -> None:
    winner = logits.argmax(1)
    smoothing = build_loss("ls", alpha=0.3)(logits, winner)
    torch.testing.assert_close(build_loss("mbls", margin=0.0, alpha=0.3)(logits, winner), smoothing)


def test_mbls_beyond_every_distance_is_cross_entropy(logits: Tensor, label: Tensor) -> None:
    torch.testing.assert_close(build_loss("mbls", margin=100.0)(logits, label), F.cross_entropy(logits, label))


def test_svls_is_an_unweighted_linear_constraint_on_the_neighbourhood(logits: Tensor, label: Tensor) -> None:
    # SVLS = CE + sum_k (y_k - tau_k) l_k: the pull is y - tau, of fixed weight 1
    hot = F.one_hot(label, CLASSES).movedim(-1, 1).double()
    tau = label_proportions(label, CLASSES, "gaussian", dtype=torch.float64)
    expected = F.cross_entropy(logits, label) + ((hot - tau) * logits).sum(1).mean()
    torch.testing.assert_close(build_loss("svls")(logits, label), expected)


@pytest.mark.parametrize("distance_type", ["l1", "l2"])
def test_nacl_is_zero_exactly_where_the_logits_are_the_proportions(label: Tensor, distance_type: str) -> None:
    tau = label_proportions(label, CLASSES, dtype=torch.float64)
    loss = build_loss("nacl", distance_type=distance_type, alpha=0.3)
    torch.testing.assert_close(loss(tau, label), F.cross_entropy(tau, label))
    apart = loss(tau + 0.5, label) - F.cross_entropy(tau, label)
    assert apart.item() == pytest.approx(0.3 * (0.5 if distance_type == "l1" else 0.25))


def test_nacl_l2_adds_a_quadratic_to_the_linear_constraint_of_svls(logits: Tensor, label: Tensor) -> None:
    # |tau - l|^2 = -2 tau l + l^2 + constant: with the gaussian prior, the linear part is that of SVLS
    tau = label_proportions(label, CLASSES, "gaussian", dtype=torch.float64)
    penalty = build_loss("nacl", kernel_ops="gaussian", distance_type="l2", alpha=1.0)
    got = penalty(logits, label) - F.cross_entropy(logits, label)
    hot = F.one_hot(label, CLASSES).movedim(-1, 1).double()
    linear = build_loss("svls")(logits, label) - F.cross_entropy(logits, label)
    rest = ((logits**2 + tau**2).mean(1) - 2 / CLASSES * (hot * logits).sum(1)).mean()
    torch.testing.assert_close(got, 2 / CLASSES * linear + rest)


def test_slopes_of_the_penalties_at_a_distance() -> None:
    """The figure of the page: dP/dd for one voxel of two classes whose winning logit is d above the other."""
    slopes = {}
    for name, arguments in {
        "ls": {"alpha": 1.0},
        "mbls": {"alpha": 1.0, "margin": 5.0},
        "nacl": {"alpha": 1.0},
        "ecp": {"alpha": 1.0},
    }.items():
        for distance in (3.0, 8.0):
            logits = torch.tensor([[[distance], [0.0]]], dtype=torch.float64, requires_grad=True)
            loss = build_loss(name, **arguments)
            value = loss(logits, torch.zeros(1, 1, 1)) - F.cross_entropy(logits, torch.zeros(1, 1).long())
            (gradient,) = torch.autograd.grad(value, logits)
            slopes[name, distance] = gradient[0, 0, 0].item()
    assert slopes["ls", 3.0] == slopes["ls", 8.0] == pytest.approx(0.5)
    assert slopes["mbls", 3.0] == 0
    assert slopes["mbls", 8.0] == pytest.approx(0.5)
    assert slopes["nacl", 3.0] == slopes["nacl", 8.0] == pytest.approx(0.5)
    # d/dd of sum_k s_k log s_k is s (1 - s) d, which fades
    for distance in (3.0, 8.0):
        prob = 1 / (1 + math.exp(-distance))
        assert slopes["ecp", distance] == pytest.approx(prob * (1 - prob) * distance / 2)
