"""One line per epoch: what the run has reached, and how long it still takes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence

import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator

__all__ = ["EpochProgress", "validation_value"]

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
        epochs: length of the whole training, where one run is a part of it, such as a round of a federation; classes
            are judged at its end only.

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
        epochs: int | None = None,
    ) -> None:
        self.validator = validator
        self.metric = metric
        self.loss = loss
        self.class_names = class_names
        self.logger = logging.getLogger(name)
        self.epochs = epochs
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
            parts.append(f"{self.metric} {validation_value(self.validator, self.metric):.3f} [{values}]")
        parts.append(f"{seconds:.1f} s/epoch, {(epochs - epoch) * seconds / 60:.1f} min left")
        self.logger.info("  ".join(parts))

    def completed(self, engine: Engine) -> None:
        """Names the classes that were not learned, at the end of the training."""
        if self.epochs is not None and engine.state.epoch < self.epochs and not engine.should_terminate:
            return
        for number, value in enumerate(self._per_class(), start=1):
            class_name = f" ({self.class_names[number]})" if number < len(self.class_names) else ""
            if math.isnan(value):
                self.logger.warning(
                    f"class {number}{class_name} is in no label of the validation cases: whether it was learned is "
                    "unknown. Split the data so that every class is validated"
                )
            elif value < _NOT_CONVERGED:
                self.logger.warning(
                    f"not converged: class {number}{class_name} ends with a validation {self.metric} of {value:.3f}. "
                    "Train longer or with another seed, and do not average this run in"
                )

    def _per_class(self) -> list[float]:
        details = _details(self.validator, self.metric)
        return [] if details is None else torch.nanmean(details, dim=0).reshape(-1).tolist()


def validation_value(validator: Evaluator, metric: str) -> float:
    """A metric of the last validation; NaN where nothing was measured, for which MONAI's mean over nothing is 0."""
    value = validator.state.metrics.get(metric)
    details = _details(validator, metric)
    return math.nan if value is None or (details is not None and bool(details.isnan().all())) else float(value)


def _details(validator: Evaluator, metric: str) -> torch.Tensor | None:
    details = getattr(validator.state, "metric_details", {}).get(metric)
    return None if details is None else torch.as_tensor(details).float()
