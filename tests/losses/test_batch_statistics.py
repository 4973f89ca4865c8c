"""MDCA, MEEP and DSC++ in closed form and against independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceLoss

from monai_calib.losses import DSCPlusPlusLoss, MDCALoss, MEEPLoss, build_loss


def example(seed: int, axes: int = 2, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, classes, *[4] * axes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, classes, (2, *[4] * axes), generator=generator)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), axes=st.integers(1, 3), classes=st.integers(2, 4))
def test_equal_numpy(seed: int, axes: int, classes: int) -> None:
    logits, label = example(seed, axes, classes)
    prob = np.moveaxis(logits.softmax(1).numpy(), 1, -1).reshape(-1, classes)
    truth = np.eye(classes)[label.numpy().ravel()]
    mdca = np.abs(prob.mean(0) - truth.mean(0)).mean()
    assert MDCALoss(lambda_ce=0.0)(logits, label).item() == pytest.approx(mdca)
    wrong = prob.argmax(1) != label.numpy().ravel()
    forms = {
        "binary": (prob * np.log(prob) + (1 - prob) * np.log(1 - prob)).mean(1),
        "entropy": (prob * np.log(prob)).sum(1),
        "kl": (np.log(1 / classes) - np.log(prob)).mean(1),
    }
    for form, confidence in forms.items():
        meep = confidence[wrong].mean() if wrong.any() else 0.0
        assert MEEPLoss(lambda_ce=0.0, alpha=1.0, form=form)(logits, label).item() == pytest.approx(meep)
    scores = []
    for b in range(2):
        for k in range(classes):
            s, y = logits.softmax(1)[b, k].numpy().ravel(), (label[b] == k).numpy().ravel()
            hit, missed, false = (s * y).sum(), (((1 - s) * y) ** 2).sum(), ((s * ~y) ** 2).sum()
            scores.append((2 * hit + 1e-5) / (2 * hit + missed + false + 1e-5))
    assert DSCPlusPlusLoss()(logits, label).item() == pytest.approx(1 - np.mean(scores))


def test_mdca_is_free_of_charge_where_the_means_agree() -> None:
    # no voxel is right about itself, the batch is on average
    label = torch.tensor([[[0, 0, 0, 1]]])
    row = torch.full((1, 1, 4), 0.75, dtype=torch.float64)
    logits = torch.cat([row.log(), (1 - row).log()], 1)
    assert MDCALoss(lambda_ce=0.0)(logits, label).item() == pytest.approx(0.0, abs=1e-12)
    # a constant shift of one class's mean confidence by d costs 2 d / K
    row = row + 0.1
    logits = torch.cat([row.log(), (1 - row).log()], 1)
    assert MDCALoss(lambda_ce=0.0)(logits, label).item() == pytest.approx(0.1)


def test_meep_has_the_authors_entropies() -> None:
    logits, label = torch.tensor([[[2.0], [0.0], [0.0]]], dtype=torch.float64), torch.ones(1, 1, 1)
    found = {
        form: -MEEPLoss(lambda_ce=0.0, alpha=1.0, form=form)(logits, label).item() for form in ("binary", "entropy")
    }
    assert found == {"binary": pytest.approx(0.399, abs=5e-4), "entropy": pytest.approx(0.666, abs=5e-4)}
    two = torch.randn(1, 2, 50, dtype=torch.float64)
    of_two = [MEEPLoss(form=form)(two, torch.zeros(1, 1, 50)).item() for form in ("binary", "entropy")]
    assert of_two[0] == pytest.approx(of_two[1])


@pytest.mark.parametrize("form", ["binary", "entropy", "kl"])
def test_meep_of_sure_and_wrong_predictions_has_a_finite_gradient(form: str) -> None:
    logits = torch.tensor([[[200.0], [0.0], [-200.0]]], requires_grad=True)
    MEEPLoss(lambda_ce=0.0, form=form)(logits, torch.ones(1, 1, 1)).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    # the divergence from uniform still pulls where the entropies have faded
    assert (logits.grad[0, 0, 0] > 0.1) == (form == "kl")


@pytest.mark.parametrize("form", ["binary", "entropy", "kl"])
def test_gradcheck_of_meep(form: str) -> None:
    logits = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    label = logits.detach().argmin(1)
    loss = MEEPLoss(form=form)
    assert torch.autograd.gradcheck(lambda x: loss(x, label), (logits,))


def test_meep_leaves_correct_predictions_alone() -> None:
    logits = torch.tensor([[[4.0, 4.0], [0.0, 0.0]]], requires_grad=True)
    MEEPLoss(lambda_ce=0.0)(logits, torch.tensor([[0, 1]])).backward()
    assert logits.grad is not None
    assert not logits.grad[..., 0].any()
    # at the wrong voxel the descent brings the winning logit down
    assert logits.grad[0, 0, 1] > 0
    right = MEEPLoss()(logits.detach(), torch.tensor([[0, 0]]))
    assert right.item() == pytest.approx(math.log1p(math.exp(-4)), rel=1e-5)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("include_background", [True, False])
def test_dscpp_with_gamma_one_is_monais_dice(axes: int, include_background: bool) -> None:
    logits, label = example(1, axes)
    ours = DSCPlusPlusLoss(gamma=1.0, include_background=include_background)(logits, label)
    theirs = DiceLoss(softmax=True, to_onehot_y=True, include_background=include_background)
    torch.testing.assert_close(ours, theirs(logits, label.unsqueeze(1)))


def test_dscpp_stops_pushing_where_dice_goes_on() -> None:
    # for the error e = 1 - s of one voxel of an object the Dice loss has slope of order 1, DSC++ of order e
    label = torch.arange(100).view(1, 1, 100) % 2
    slopes = []
    for gamma in (1.0, 2.0):
        logits = 5 * F.one_hot(label[:, 0], 2).movedim(-1, 1).double()
        logits.requires_grad_()
        DSCPlusPlusLoss(gamma=gamma)(logits, label).backward()
        assert logits.grad is not None
        slopes.append(logits.grad[0, 0, 0].abs().item())
    assert slopes[1] < 0.05 * slopes[0]


def test_cross_entropy_comes_back_by_name() -> None:
    logits, label = example(2)
    alone = build_loss("dscpp")(logits, label)
    torch.testing.assert_close(build_loss("ce+dscpp")(logits, label), alone + F.cross_entropy(logits, label))
    torch.testing.assert_close(
        build_loss("dscpp", lambda_ce=2.0)(logits, label), alone + 2 * F.cross_entropy(logits, label)
    )
    nacl = build_loss("nacl")(logits, label) - F.cross_entropy(logits, label)
    torch.testing.assert_close(build_loss("dscpp+nacl")(logits, label), alone + nacl)


@pytest.mark.parametrize("name", ["mdca", "meep", "dscpp"])
@pytest.mark.parametrize("axes", [2, 3])
def test_gradcheck_without_cross_entropy(name: str, axes: int) -> None:
    logits, label = (x[:1, ..., :2].clone() for x in example(5, axes))
    loss = build_loss(name, lambda_ce=0.0)
    assert torch.autograd.gradcheck(lambda x: loss(x, label), (logits.requires_grad_(),))
