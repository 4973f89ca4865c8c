"""Weights of a loss that change as training goes on: a penalty's, raised, and that of Dice, which fades."""

from __future__ import annotations

from ignite.engine import Engine, Events
from torch import nn

from monai_calib.losses.base import ConstrainedLoss
from monai_calib.losses.soft_dice import fade_dice

__all__ = ["AlphaSchedule", "FadingDice"]

MODES = ("add", "multiply", "step")


class AlphaSchedule:
    """Sets ``loss.alpha`` at the start of each epoch, as a function of the epoch alone, so that a resumed run agrees.

    With e the number of finished epochs and i = e // every: ``"add"`` alpha_0 + i * amount, ``"multiply"``
    alpha_0 * amount^i, ``"step"`` alpha_0 before epoch ``every`` and ``amount`` from there; never above ``largest``.
    The MbLS authors' code offers such schedules; their published results keep alpha constant.

    Args:
        loss: whose ``alpha`` is set; its value when this handler is made is alpha_0.
        mode: ``"add"``, ``"multiply"`` or ``"step"``.
        amount: what is added, multiplied by, or stepped to.
        every: epochs between changes; the epoch of the step.
        largest: upper bound of alpha.

    Raises:
        ValueError: an unknown mode, ``every`` below 1, a negative amount.

    Source: Liu et al., CVPR 2022 (https://arxiv.org/abs/2111.15430), and its code

    Example:
        >>> from monai_calib.losses import MbLSLoss
        >>> schedule = AlphaSchedule(MbLSLoss(alpha=0.1), mode="multiply", amount=2.0, every=10, largest=0.3)
        >>> [schedule.alpha(finished_epochs=e) for e in (0, 9, 10, 20)]
        [0.1, 0.1, 0.2, 0.3]
    """

    def __init__(
        self,
        loss: ConstrainedLoss,
        mode: str = "add",
        amount: float = 0.1,
        every: int = 1,
        largest: float = float("inf"),
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}.")
        if every < 1 or amount < 0:
            raise ValueError(f"every must be at least 1 and amount not negative, got {every} and {amount}.")
        self.loss = loss
        self.start = loss.alpha
        self.mode = mode
        self.amount = amount
        self.every = every
        self.largest = largest

    def alpha(self, finished_epochs: int) -> float:
        """The weight after that many epochs."""
        times = finished_epochs // self.every
        if self.mode == "step":
            value = self.amount if times else self.start
        elif self.mode == "add":
            value = self.start + times * self.amount
        else:
            value = self.start * self.amount**times
        return min(value, self.largest)

    def attach(self, engine: Engine) -> None:
        """Set alpha when an epoch of ``engine``, the trainer, starts."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        self.loss.alpha = self.alpha(engine.state.epoch - 1)


class FadingDice:
    """Tells a loss at each step how far the training is, so that its Dice fades: ``build_loss("dice_ce_fading")``.

    The weight of Dice falls in a straight line to 0, by default at half of the training, or after 1,000 steps where
    half is less: with i of n steps done, ``max(0, 1 - i / min(n, max(dice_fades * n, 1000)))``. It depends on the step
    alone, so that a resumed run agrees. A loss whose Dice does not fade is left alone, so that the handler may stay in
    a configuration whose loss changes.

    Args:
        loss: the training loss, alone or inside others.
        epochs: length of the whole training; the trainer's ``max_epochs`` by default.

    Raises:
        ValueError: ``epochs`` below 1.

    Example:
        >>> from monai_calib.losses import build_loss
        >>> loss = build_loss("dice_ce_fading")
        >>> trainer = Engine(lambda engine, batch: print(f"{loss.dice.weight:.2f}"))
        >>> FadingDice(loss).attach(trainer)
        >>> _ = trainer.run([0, 1], max_epochs=2)
        1.00
        0.75
        0.50
        0.25
    """

    def __init__(self, loss: nn.Module, epochs: int | None = None) -> None:
        if epochs is not None and epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {epochs}.")
        self.loss = loss
        self.epochs = epochs

    def attach(self, engine: Engine) -> None:
        """Follow ``engine``, the trainer."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        state = engine.state
        steps = (self.epochs or state.max_epochs or 1) * (state.epoch_length or 1)
        fade_dice(self.loss, (state.iteration - 1) / steps, steps)
