"""The constraint "confidence equals accuracy near boundaries", and the multiplier that follows it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from scipy.ndimage import maximum_filter, minimum_filter
from torch import Tensor, nn

from monai_calib.losses import GapLoss, build_loss


def batch(seed: int = 0, shape: tuple[int, ...] = (2, 3, 9, 8, 5)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(shape[0], shape[1], *[2] * (len(shape) - 2), generator=generator)
    logits = 3 * nn.functional.interpolate(coarse, shape[2:]) + torch.randn(shape, generator=generator)
    label = (nn.functional.interpolate(coarse, shape[2:]) + torch.randn(shape, generator=generator)).argmax(1)
    return logits.requires_grad_(), label.unsqueeze(1)


def gap_by_hand(logits: Tensor, label: Tensor, window: tuple[int, ...]) -> float:
    """Mean of confidence minus accuracy near predicted boundaries, by NumPy and SciPy."""
    values = logits.detach().double().numpy()
    prob = np.exp(values - values.max(1, keepdims=True))
    prob /= prob.sum(1, keepdims=True)
    guess, truth = prob.argmax(1), label.squeeze(1).numpy()
    near = np.stack(
        [maximum_filter(one, window, mode="nearest") != minimum_filter(one, window, mode="nearest") for one in guess]
    )
    return float((prob.max(1) - (guess == truth))[near].mean())


@pytest.mark.parametrize(("shape", "window"), [((2, 3, 9, 8, 5), (3, 3, 3)), ((2, 4, 12, 9), (5, 3))])
def test_the_multiplier_follows_the_gap(shape: tuple[int, ...], window: tuple[int, ...]) -> None:
    loss = GapLoss(rate=0.2, kernel_size=window, lambda_ce=0.0)
    expected = 0.0
    for seed in range(3):
        logits, label = batch(seed, shape)
        gap = gap_by_hand(logits, label, window)
        assert abs(gap) > 0.01
        assert loss(logits, label).item() == pytest.approx(expected * gap, abs=1e-6)
        expected += 0.2 * gap
        assert loss.penalty.multiplier.item() == pytest.approx(expected, abs=1e-6)
        assert loss.penalty.gap.item() == pytest.approx(gap, abs=1e-6)


def test_the_gradient_is_that_of_the_multiplier_times_the_mean_confidence() -> None:
    logits, label = batch()
    loss = GapLoss(lambda_ce=0.0).eval()
    loss.penalty.multiplier.fill_(-0.7)
    whole = torch.ones_like(label[:, 0], dtype=torch.bool)
    (gradient,) = torch.autograd.grad(loss(logits, label), logits)
    confidence = logits.softmax(1).amax(1)
    near = torch.autograd.grad(loss.penalty.multiplier * confidence[whole].sum(), logits)[0]
    touched = gradient.abs().sum(1) > 0
    assert 0 < touched.sum() < touched.numel()
    factor = 1 / touched.sum()
    torch.testing.assert_close(gradient, near * touched.unsqueeze(1) * factor, rtol=1e-5, atol=1e-9)


def test_a_network_that_dice_makes_sure_of_itself_ends_as_sure_as_it_is_right() -> None:
    """One number scales noisy evidence: what Dice overdoes, the multiplier takes back."""
    generator = torch.Generator().manual_seed(1)
    truth = torch.zeros(1, 1, 60, 60, dtype=torch.int64)
    truth[..., 15:45, 15:45] = 1
    evidence = (2.0 * truth - 1) + 1.5 * torch.randn(truth.shape, generator=generator)

    def trained(name: str) -> float:
        loss, scale = build_loss(name, lambda_dice=3.0), nn.Parameter(torch.tensor(0.1))
        optimizer = torch.optim.Adam([scale], lr=0.02)
        for _ in range(800):
            optimizer.zero_grad()
            loss(scale * torch.cat([-evidence, evidence], 1), truth).backward()
            optimizer.step()
        return gap_by_hand(scale * torch.cat([-evidence, evidence], 1), truth, (3, 3))

    assert trained("dice_ce") > 0.1
    assert abs(trained("dice_ce+gap")) < 0.01


def test_it_stands_still_where_nothing_is_trained() -> None:
    logits, label = batch()
    loss = GapLoss()
    with torch.no_grad():
        loss(logits, label)
    loss(logits.detach(), label)
    loss.eval()(logits, label)
    assert loss.penalty.multiplier.item() == 0
    assert math.isnan(loss.penalty.gap.item())
    loss.train()(torch.zeros(1, 2, 4, 4, requires_grad=True), torch.zeros(1, 1, 4, 4))  # no boundary anywhere
    assert loss.penalty.multiplier.item() == 0


def test_a_saved_loss_goes_on_where_it_stopped() -> None:
    first, second = GapLoss(), GapLoss()
    first(*batch(0))
    second.load_state_dict(first.state_dict())
    assert first(*batch(1)).item() == second(*batch(1)).item()
    assert first.penalty.multiplier.item() == second.penalty.multiplier.item() != 0


def test_accuracy_of_a_soft_label_is_its_probability_of_the_predicted_class() -> None:
    logits = torch.tensor([[[3.0, -3.0], [-3.0, 3.0]]], requires_grad=True)
    soft = torch.tensor([[[0.7, 0.2], [0.3, 0.8]]])
    loss = GapLoss(rate=1.0)
    loss(logits, soft)
    assert loss.penalty.multiplier.item() == pytest.approx(torch.tensor(6.0).sigmoid().item() - 0.75, abs=1e-6)


def _one_rank(rank: int, world: int, root: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{root}/store", rank=rank, world_size=world)
    loss = GapLoss(rate=1.0)
    loss(*batch(rank, (1 + rank, 3, 9, 8)))
    torch.save(loss.state_dict(), f"{root}/{rank}.pt")
    dist.destroy_process_group()


def test_ranks_move_together_by_the_voxels_of_all(tmp_path: Path) -> None:
    mp.spawn(_one_rank, args=(2, str(tmp_path)), nprocs=2)
    moved = [torch.load(tmp_path / f"{rank}.pt")["penalty.multiplier"].item() for rank in range(2)]
    parts = [batch(rank, (1 + rank, 3, 9, 8)) for rank in range(2)]
    pooled = GapLoss(rate=1.0)
    pooled(torch.cat([logits for logits, _ in parts]), torch.cat([label for _, label in parts]))
    assert moved == pytest.approx([pooled.penalty.multiplier.item()] * 2, abs=1e-6)
