"""Dice whose weight falls to 0 over a training: its value at each step, in the trainer and after a stop."""

from __future__ import annotations

import warnings

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.losses import DiceCELoss, DiceLoss
from torch import Tensor, nn

from monai_calib.handlers import FadingDice
from monai_calib.losses import build_loss, fade_dice


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 6, 5, generator=generator), torch.randint(0, 3, (2, 1, 6, 5), generator=generator)


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 1.0), (0.3, 0.7), (1.0, 0.0), (-2.0, 1.0), (1.5, 0.0)])
@pytest.mark.parametrize("name", ["dice_ce_fading", "dice_ce_fading+nacl_outer", "mbls"])
def test_the_weight_of_dice_is_what_is_to_come(name: str, progress: float, weight: float) -> None:
    arguments = {"lambda_dice": 1.0, "dice_fades": 1.0}
    loss, without = build_loss(name, **arguments), build_loss(name, **{**arguments, "lambda_dice": 0.0})
    fade_dice(nn.ModuleList([loss]), progress)  # inside others too
    logits, label = batch()
    dice = DiceLoss(softmax=True, to_onehot_y=True)(logits, label)
    torch.testing.assert_close(loss(logits, label), without(logits, label) + weight * dice)


def test_until_it_is_told_it_is_monais_dice_and_cross_entropy() -> None:
    logits, label = batch()
    expected = DiceCELoss(softmax=True, to_onehot_y=True)(logits, label)
    torch.testing.assert_close(build_loss("dice_ce_fading")(logits, label), expected)


def test_a_training_in_which_nobody_tells_is_told_so_once() -> None:
    loss, (logits, label) = build_loss("dice_ce_fading"), batch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.no_grad():
            loss(logits, label)
    with pytest.warns(UserWarning, match="FadingDice"):
        loss(logits, label)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(logits, label)
        told = build_loss("dice_ce_fading")
        fade_dice(told, 0.0)
        told(logits, label)


def weights_seen(first_epoch: int, max_epochs: int, epochs: int | None, steps: int = 2) -> list[float]:
    """Weight of Dice in each step of MONAI's trainer, ``steps`` an epoch; after ``first_epoch`` finished ones."""
    network, seen = nn.Conv2d(1, 3, 1), []
    loss = build_loss("dice_ce_fading")
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=max_epochs,
        train_data_loader=[{"image": torch.ones(1, 1, 4, 4), "label": torch.ones(1, 1, 4, 4)}] * steps,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), 0.1),
        loss_function=loss,
    )
    FadingDice(loss, epochs).attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.append(loss.dice.weight.item()))
    trainer.state.epoch, trainer.state.iteration = first_epoch, steps * first_epoch
    trainer.run()
    return seen


def test_the_trainer_tells_it_at_each_step() -> None:
    assert weights_seen(0, 4, None) == pytest.approx([1 - i / 8 for i in range(8)])
    assert weights_seen(0, 2, 4) == pytest.approx([1 - i / 8 for i in range(4)])  # a training to be continued
    assert weights_seen(2, 4, 4) == pytest.approx([1 - i / 8 for i in range(4, 8)])  # and continued
    assert weights_seen(0, 2, 1) == pytest.approx([1.0, 0.5, 0.0, 0.0])


@pytest.mark.parametrize(("steps", "gone"), [(400, 800), (700, 1000), (1200, 1200)])
def test_it_takes_half_of_the_training_but_a_thousand_steps_or_all(steps: int, gone: int) -> None:
    """Two epochs of so many steps: the weight falls in a straight line, and is 0 after ``gone``."""
    seen = weights_seen(0, 2, None, steps)
    assert seen == pytest.approx([max(0.0, 1 - i / gone) for i in range(2 * steps)], abs=1e-6)


def test_without_a_number_of_steps_it_is_gone_at_half() -> None:
    loss, (logits, label) = build_loss("dice_ce_fading", lambda_ce=0.0), batch()
    whole = build_loss("dice_ce", lambda_ce=0.0)(logits, label)
    for progress, weight in ((0.0, 1.0), (0.2, 0.6), (0.5, 0.0), (0.9, 0.0)):
        fade_dice(loss, progress)
        torch.testing.assert_close(loss(logits, label), weight * whole)


def test_a_loss_that_does_not_fade_is_left_alone() -> None:
    loss = build_loss("dice_ce")
    FadingDice(loss).attach(engine := Engine(lambda engine, batch: None))
    before = loss(*batch())
    engine.run([0, 1], max_epochs=1)
    assert torch.equal(loss(*batch()), before)
    assert not loss.state_dict()
    with pytest.raises(ValueError, match="at least 1"):
        FadingDice(loss, 0)
    with pytest.raises(ValueError, match="dice_fades"):
        build_loss("dice_ce", dice_fades=2)


def test_progress_is_saved_with_the_loss() -> None:
    first, second = build_loss("dice_ce_fading"), build_loss("dice_ce_fading")
    fade_dice(first, 0.25)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(*batch()), second(*batch()))
