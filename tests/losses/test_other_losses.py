"""ACLS, FLSD and LogitNorm in closed form and against independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_calib.losses import ACLSLoss, FLSDLoss, FocalLoss, LogitNormLoss, MbLSLoss


def example(seed: int, axes: int = 2, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(2, classes, *[4] * axes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, classes, (2, *[4] * axes), generator=generator)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), axes=st.integers(1, 3), classes=st.integers(2, 5), margin=st.floats(0, 6))
def test_acls_equals_numpy(seed: int, axes: int, classes: int, margin: float) -> None:
    logits, label = example(seed, axes, classes)
    rows = np.moveaxis(logits.numpy(), 1, -1).reshape(-1, classes)
    winner = rows.argmax(1)
    top = rows.max(1)
    over = np.maximum(top - margin, 0) ** 2
    under = np.maximum(top[:, None] - rows - margin, 0) ** 2
    under[np.arange(len(rows)), winner] = 0
    penalty = (1.5 * over + 0.3 * under.sum(1) / (classes - 1)).mean()
    expected = F.cross_entropy(logits, label).item() + 0.2 * penalty
    loss = ACLSLoss(pos_lambda=1.5, neg_lambda=0.3, margin=margin, alpha=0.2)
    assert loss(logits, label).item() == pytest.approx(expected)


def test_acls_gradient_by_hand() -> None:
    # winner: alpha pos 2 (l - m); losers: -alpha neg 2 (l_w - l_k - m) / (K - 1), and no share of it for the winner
    logits = torch.tensor([[[5.0], [1.0], [-2.0]]], dtype=torch.float64, requires_grad=True)
    label = torch.zeros(1, 1)
    (slope,) = torch.autograd.grad(ACLSLoss(margin=2.0)(logits, label) - F.cross_entropy(logits, label.long()), logits)
    expected = torch.tensor([0.1 * 2 * 3, -0.1 * 0.1 * 2 * 2 / 2, -0.1 * 0.1 * 2 * 5 / 2], dtype=torch.float64)
    torch.testing.assert_close(slope.flatten(), expected)


def test_acls_without_the_winners_term_is_squared_mbls() -> None:
    logits, label = example(3)
    classes = logits.shape[1]
    acls = ACLSLoss(pos_lambda=0.0, neg_lambda=1.0, margin=2.0, alpha=0.1)
    mbls = MbLSLoss(margin=2.0, distance_type="l2", alpha=0.1 * classes / (classes - 1))
    torch.testing.assert_close(acls(logits, label), mbls(logits, label))


def test_flsd_is_focal_with_gamma_by_voxel() -> None:
    logits, label = example(4)
    unsure = logits.softmax(1).gather(1, label.unsqueeze(1)).squeeze(1) < 0.2
    assert unsure.any()
    assert not unsure.all()
    voxels = FLSDLoss(reduction="none")(logits, label)
    for gamma, where in ((5.0, unsure), (3.0, ~unsure)):
        torch.testing.assert_close(voxels[where], FocalLoss(gamma=gamma, reduction="none")(logits, label)[where])


def test_flsd_of_soft_labels_reads_their_mean_probability() -> None:
    logits = torch.tensor([[[2.0], [0.0], [0.0]]], dtype=torch.float64)
    soft = torch.tensor([[[0.0], [0.5], [0.5]]], dtype=torch.float64)  # mean probability 0.107
    torch.testing.assert_close(FLSDLoss()(logits, soft), FocalLoss(gamma=5.0)(logits, soft))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 50.0), temperature=st.floats(0.04, 2.0))
def test_logit_norm_ignores_the_length_of_the_logits(seed: int, scale: float, temperature: float) -> None:
    logits, label = example(seed)
    loss = LogitNormLoss(temperature=temperature)
    torch.testing.assert_close(loss(scale * logits, label), loss(logits, label), rtol=1e-5, atol=1e-6)
    unit = logits.numpy() / np.sqrt((logits.numpy() ** 2).sum(1, keepdims=True)) / temperature
    torch.testing.assert_close(
        loss(logits, label), F.cross_entropy(torch.from_numpy(unit), label), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("classes", [2, 5])
def test_logit_norm_caps_confidence(classes: int) -> None:
    # the best unit vector is 1 for the label and -1 / (K - 1) for the others, normalised
    logits = torch.full((1, classes, 1), -1.0 / (classes - 1), dtype=torch.float64)
    logits[:, 0] = 1.0
    loss = LogitNormLoss(temperature=0.5)(logits, torch.zeros(1, 1, 1))
    top = 1 / (1 + (classes - 1) * math.exp(-math.sqrt(classes / (classes - 1)) / 0.5))
    assert math.exp(-loss.item()) == pytest.approx(top, rel=1e-6)
    for _ in range(20):
        logits = torch.randn(1, classes, 1, dtype=torch.float64)
        assert math.exp(-LogitNormLoss(temperature=0.5)(logits, torch.zeros(1, 1, 1)).item()) <= top + 1e-9
