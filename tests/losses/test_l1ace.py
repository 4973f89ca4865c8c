"""mL1-ACE against a computation bin by bin, against MONAI's binning, and in closed form."""

from __future__ import annotations

import math

import monai.losses
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceLoss
from monai.metrics import calibration_binning

from monai_calib.losses import HardL1ACELoss, SoftL1ACELoss, build_loss
from monai_calib.losses.neighborhood import outer_voxels


def hard_reference(prob: np.ndarray, label: np.ndarray, num_bins: int) -> float:
    """Voxel by voxel, with Python lists."""
    rows = []
    for b in range(prob.shape[0]):
        for k in range(prob.shape[1]):
            members: dict[int, list[tuple[float, float]]] = {}
            for s, y in zip(prob[b, k].ravel(), label[b].ravel() == k, strict=True):
                members.setdefault(max(math.ceil(s * num_bins) - 1, 0), []).append((s, float(y)))
            gaps = [abs(np.mean([s for s, _ in m]) - np.mean([y for _, y in m])) for m in members.values()]
            rows.append(np.mean(gaps) if (label[b] == k).any() else 0.0)
    return float(np.mean(rows))


def soft_reference(prob: np.ndarray, label: np.ndarray, num_bins: int, empty_weight: float) -> float:
    """A tent of height 1 over every bin centre, the outermost ones flat to the outside."""
    centres = (np.arange(num_bins) + 0.5) / num_bins
    rows = []
    for b in range(prob.shape[0]):
        for k in range(prob.shape[1]):
            s, y = np.clip(prob[b, k].ravel(), centres[0], centres[-1]), (label[b] == k).ravel()
            tent = np.clip(1 - np.abs(s[:, None] - centres) * num_bins, 0, None)
            weight = tent.sum(0)
            kept = weight >= empty_weight
            gap = np.abs((tent * (prob[b, k].ravel() - y)[:, None]).sum(0)[kept] / weight[kept])
            rows.append(gap.mean() if (label[b] == k).any() and kept.any() else 0.0)
    return float(np.mean(rows))


def example(seed: int, axes: int, classes: int, size: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, classes, *[size] * axes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, classes, (2, *[size] * axes), generator=generator)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    axes=st.integers(1, 3),
    classes=st.integers(2, 4),
    bins=st.sampled_from([1, 2, 7, 20]),
    empty_weight=st.sampled_from([0.01, 1.5]),
)
def test_equals_numpy(seed: int, axes: int, classes: int, bins: int, empty_weight: float) -> None:
    logits, label = example(seed, axes, classes)
    prob = logits.softmax(1).numpy()
    hard = HardL1ACELoss(bins, lambda_ce=0.0)(logits, label).item()
    assert hard == pytest.approx(hard_reference(prob, label.numpy(), bins), abs=1e-9)
    soft = SoftL1ACELoss(bins, empty_weight=empty_weight, lambda_ce=0.0)(logits, label).item()
    # MONAI's last edge lies a float32 rounding error beyond 1, so the centres differ by as much
    assert soft == pytest.approx(soft_reference(prob, label.numpy(), bins, empty_weight), abs=3e-6)


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("include_background", [False, True])
def test_hard_bins_are_those_of_monais_metric(right: bool, include_background: bool) -> None:
    logits, label = example(3, 3, 4)
    logits = logits.float()
    label[1][label[1] == 2] = 0
    logits[0] = 0.0  # probabilities of exactly 1/4, on the border of two bins
    hot = F.one_hot(label, 4).movedim(-1, 1).float()
    confidence, frequency, _ = calibration_binning(logits.softmax(1), hot, num_bins=20, right=right)
    rows = torch.nanmean((confidence - frequency).abs(), -1) * (hot.flatten(2).sum(2) > 0)
    expected = rows.mean() if include_background else rows[:, 1:].mean()
    loss = HardL1ACELoss(lambda_ce=0.0, right=right, include_background=include_background)
    torch.testing.assert_close(loss(logits, label), expected)
    everything = HardL1ACELoss(lambda_ce=0.0, right=right, ignore_empty_classes=False)(logits, label)
    torch.testing.assert_close(everything, torch.nanmean((confidence - frequency).abs(), -1).mean())


@pytest.mark.skipif(not hasattr(monai.losses, "HardL1ACELoss"), reason="MONAI has these losses from its next version")
@pytest.mark.parametrize("name", ["HardL1ACELoss", "SoftL1ACELoss"])
@pytest.mark.parametrize("arguments", [{}, {"num_bins": 7, "include_background": False}], ids=str)
def test_equals_monai(name: str, arguments: dict[str, object]) -> None:
    logits, label = example(5, 3, 4)
    theirs = getattr(monai.losses, name)(softmax=True, to_onehot_y=True, **arguments)
    ours = {"HardL1ACELoss": HardL1ACELoss, "SoftL1ACELoss": SoftL1ACELoss}[name](lambda_ce=0.0, **arguments)
    torch.testing.assert_close(ours(logits, label), theirs(logits, label.unsqueeze(1)))


@pytest.mark.parametrize("name", ["hard_l1ace", "soft_l1ace"])
@pytest.mark.parametrize("axes", [2, 3])
def test_gradcheck_without_cross_entropy(name: str, axes: int) -> None:
    logits, label = example(7, axes, 3, 5 - axes)
    loss = build_loss(name, lambda_ce=0.0, num_bins=6)
    assert torch.autograd.gradcheck(lambda x: loss(x, label), (logits.requires_grad_(),))


@pytest.mark.parametrize("name", ["hard_l1ace", "soft_l1ace"])
def test_calibrated_predictions_cost_nothing_and_overconfident_ones_their_excess(name: str) -> None:
    # a quarter of the voxels is class 1; the probabilities are bin centres
    label = torch.zeros(1, 1, 1000)
    label[..., :250] = 1
    loss = build_loss(name, lambda_ce=0.0, num_bins=10)
    for prob, gap in ((0.25, 0.0), (0.05, 0.2), (0.75, 0.5)):
        row = torch.full((1, 1, 1000), prob)
        logits = torch.cat([(1 - row).log(), row.log()], 1)
        assert loss(logits, label).item() == pytest.approx(gap, abs=1e-5)


def test_gradient_of_the_hard_loss_pulls_every_voxel_of_a_bin_alike() -> None:
    # one bin: d|mean s - mean y| / ds_i = sign / N
    prob = torch.full((1, 10), 0.5, requires_grad=True)
    HardL1ACELoss().penalty.mean_gap(prob, torch.ones(1, 10), torch.ones(1, 10)).sum().backward()
    torch.testing.assert_close(prob.grad, torch.full((1, 10), -0.1))


def test_soft_bins_may_hold_more_than_float32_can_add_up() -> None:
    # shares added one by one in float32 are rounded off long before a 256^3 volume is read
    penalty = SoftL1ACELoss().penalty
    row = torch.full((1, 3_000_000), 0.33)
    assert penalty.mean_gap(row, torch.zeros_like(row), torch.ones_like(row)).item() == pytest.approx(0.33, rel=1e-6)


def test_the_outer_region_is_the_loss_of_the_outer_voxels() -> None:
    logits, label = torch.randn(1, 3, 9, 9), torch.zeros(1, 1, 9, 9, dtype=torch.long)
    label[..., 3:6, 2:7] = 1
    outer = outer_voxels(label[:, 0])
    for name in ("hard_l1ace", "soft_l1ace", "mdca", "meep", "dscpp"):
        region = build_loss(name, penalty_region="outer", lambda_ce=0.0)(logits, label)
        alone = build_loss(name, lambda_ce=0.0)(logits[:, :, outer[0]], label[:, :, outer[0]])
        torch.testing.assert_close(region, alone)


def test_composes_with_dice_and_with_each_other() -> None:
    logits, label = example(11, 2, 3)
    ce = F.cross_entropy(logits, label)
    dice = DiceLoss(softmax=True, to_onehot_y=True)(logits, label.unsqueeze(1))
    hard = build_loss("hard_l1ace", lambda_ce=0.0)(logits, label)
    mdca = build_loss("mdca", lambda_ce=0.0)(logits, label)
    torch.testing.assert_close(build_loss("dice_ce+hard_l1ace")(logits, label), ce + dice + hard)
    joined = build_loss("dice_ce+hard_l1ace+mdca", mdca={"alpha": 0.5})(logits, label)
    torch.testing.assert_close(joined, ce + dice + hard + 0.5 * mdca)
