"""One line per epoch: what the run has reached, and how long it still takes."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator

__all__ = ["EpochProgress"]

_NOT_CONVERGED = 0.1
"""A foreground class whose validation Dice ends below this never got off the ground."""


class EpochProgress:
    """Logs loss, validation Dice (mean and per class), seconds and remaining time after each epoch.

    At the end it warns of every foreground class that the network did not learn: such a run says nothing about its
    loss and is to be repeated, not averaged in. List the handler last, so that it sees the epoch's validation.

    Args:
        validator: evaluator whose ``state.metrics[metric]`` and ``state.metric_details[metric]`` are shown.
        metric: name of the validation metric, one value per foreground class in its details.
        loss: name of the training loss in the trainer's metrics.
        class_names: names of all classes, the background first.
        name: logger to write to.

    Example:
        >>> from monai.engines import SupervisedEvaluator
        >>> validator = SupervisedEvaluator(torch.device("cpu"), [], torch.nn.Identity())
        >>> EpochProgress(validator).attach(Engine(lambda engine, batch: None))
    """

    def __init__(
        self,
        validator: Evaluator,
        metric: str = "mean_dice",
        loss: str = "train_loss",
        class_names: Sequence[str] = (),
        name: str = "monai_calib",
    ) -> None:
        self.validator = validator
        self.metric = metric
        self.loss = loss
        self.class_names = class_names
        self.logger = logging.getLogger(name)
        self._started_at = 0.0
        self._first_epoch = 0

    def attach(self, engine: Engine) -> None:
        """Registers the handler on the trainer."""
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def started(self, engine: Engine) -> None:
        """Starts the clock; a resumed run counts from its own start."""
        self._started_at = time.monotonic()
        self._first_epoch = engine.state.epoch

    def epoch_completed(self, engine: Engine) -> None:
        """Logs the epoch."""
        epoch, epochs = engine.state.epoch, engine.state.max_epochs or engine.state.epoch
        seconds = (time.monotonic() - self._started_at) / max(epoch - self._first_epoch, 1)
        parts = [f"epoch {epoch}/{epochs}"]
        if self.loss in engine.state.metrics:
            parts.append(f"loss {float(engine.state.metrics[self.loss]):.4f}")
        if self.metric in self.validator.state.metrics and self.validator.state.epoch == epoch:
            values = " ".join(f"{value:.3f}" for value in self._per_class())
            parts.append(f"{self.metric} {self.validator.state.metrics[self.metric]:.3f} [{values}]")
        parts.append(f"{seconds:.1f} s/epoch, {(epochs - epoch) * seconds / 60:.1f} min left")
        self.logger.info("  ".join(parts))

    def completed(self, engine: Engine) -> None:
        """Names the classes that were not learned."""
        for number, value in enumerate(self._per_class(), start=1):
            if not value >= _NOT_CONVERGED:
                class_name = self.class_names[number] if number < len(self.class_names) else ""
                self.logger.warning(
                    f"not converged: class {number} {class_name} ends with a validation {self.metric} of {value:.3f}. "
                    "Train longer or with another seed, and do not average this run in"
                )

    def _per_class(self) -> list[float]:
        details = self.validator.state.metric_details.get(self.metric)
        return [] if details is None else torch.nanmean(torch.as_tensor(details).float(), dim=0).tolist()
