"""The Dice semimetric: Dice on hard labels, and lowest at the label itself on soft ones."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceLoss

from monai_calib.losses import DiceSemimetricLoss, build_loss


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("include_background", [True, False])
def test_on_hard_labels_it_is_monais_dice(axes: int, include_background: bool) -> None:
    generator = torch.Generator().manual_seed(axes)
    logits = torch.randn(2, 3, *[6] * axes, generator=generator, dtype=torch.float64)
    label = torch.randint(0, 3, (2, 1, *[6] * axes), generator=generator)
    dice = DiceLoss(softmax=True, to_onehot_y=True, include_background=include_background)(logits, label)
    loss = DiceSemimetricLoss(include_background=include_background)
    torch.testing.assert_close(loss(logits, label), dice)
    hot = torch.zeros_like(logits).scatter_(1, label, 1)
    torch.testing.assert_close(loss(logits, hot), dice)
    whole = build_loss("dice_ce", lambda_ce=0.0, include_background=include_background)
    torch.testing.assert_close(whole(logits, hot), dice)


@pytest.mark.parametrize("name", ["dice_semimetric", "dice_ce"])
def test_free_logits_end_at_a_soft_label(name: str) -> None:
    # of the field's example: labels 0.6 and 0.3, which the soft Dice loss drives to 1 and 0
    first = torch.tensor([[0.6, 0.3]], dtype=torch.float64)
    soft = torch.stack([first, 1 - first], 1)
    logits = torch.zeros_like(soft, requires_grad=True)
    loss = build_loss(name, lambda_ce=0.0)
    rate = 1.0
    for step in range(3000):
        [gradient] = torch.autograd.grad(loss(logits, soft), logits)
        with torch.no_grad():
            logits -= rate / (1 + step / 100) * gradient
    torch.testing.assert_close(logits.detach().softmax(1), soft, atol=2e-3, rtol=0)
    assert loss(logits, soft) < 2e-3


def test_the_plain_dice_loss_is_lower_away_from_a_soft_label() -> None:
    # why the semimetric is needed; a test of the premise, not of our code
    first = torch.tensor([[0.6, 0.3]])
    soft, hard = torch.stack([first, 1 - first], 1), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    assert DiceLoss()(hard, soft) < DiceLoss()(soft, soft)


def test_ignored_voxels_do_not_count() -> None:
    logits, label = torch.randn(1, 2, 6), torch.tensor([[0, 1, 1, 0, 255, 255]])
    expected = DiceSemimetricLoss()(logits[..., :4], label[:, :4])
    torch.testing.assert_close(DiceSemimetricLoss(ignore_index=255)(logits, label), expected)


def test_gradcheck() -> None:
    soft = torch.rand(2, 3, 4, dtype=torch.float64)
    soft = soft / soft.sum(1, keepdim=True)
    logits = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: DiceSemimetricLoss()(x, soft), (logits,))
