"""Dice whose derivative is multiplied by the error: its value, its gradient, and where free logits end."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceLoss

from monai_calib.losses import build_loss


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("include_background", [True, False])
def test_value_is_dice_and_gradient_is_dices_times_the_error(axes: int, include_background: bool) -> None:
    generator = torch.Generator().manual_seed(axes)
    logits = torch.randn(2, 3, *[5] * axes, generator=generator, dtype=torch.float64, requires_grad=True)
    label = torch.randint(0, 3, (2, 1, *[5] * axes), generator=generator)
    loss = build_loss("dice_ce_surgery", lambda_ce=0.0, include_background=include_background)(logits, label)
    [gradient] = torch.autograd.grad(loss, logits)

    prob = logits.softmax(1)
    hot = torch.zeros_like(logits).scatter_(1, label, 1)
    plain = DiceLoss(include_background=include_background)(prob, hot)
    [by_prob] = torch.autograd.grad(plain, prob, retain_graph=True)
    [expected] = torch.autograd.grad(prob, logits, by_prob * (prob - hot).detach().abs())
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_shared_probability_ends_near_the_share_of_labels(share: float) -> None:
    """Of voxels that look alike: where s / (1 - s) = (2 - D) / D q / (1 - q), and not at 0 or 1 as with Dice.

    That is 0.59 for a share of 0.2, where Dice cannot be good, and 0.85 for 0.8.
    """
    label = (torch.arange(10)[None, None] < 10 * share).long()
    ends = {}
    for name in ("dice_ce", "dice_ce_surgery"):
        loss = build_loss(name, lambda_ce=0.0, include_background=False)
        logit = torch.zeros((), dtype=torch.float64, requires_grad=True)
        for _ in range(3000):
            logits = torch.stack([torch.zeros_like(logit), logit]).view(1, 2, 1).expand(1, 2, 10)
            [gradient] = torch.autograd.grad(loss(logits, label), logit)
            with torch.no_grad():
                logit -= 10 * gradient
        ends[name] = logit.detach().sigmoid().item()
    end = ends["dice_ce_surgery"]
    dice = 2 * end * share / (end + share)
    assert end / (1 - end) == pytest.approx((2 - dice) / dice * share / (1 - share), rel=1e-3)
    assert ends["dice_ce"] > 0.99 or ends["dice_ce"] < 0.01
