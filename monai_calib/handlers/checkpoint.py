"""Best and last state of a training run on disk, and the way back into it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator

__all__ = ["TrainingCheckpoint"]


class TrainingCheckpoint:
    """Keeps the best and the last model of a run, resumes it, and stops it when it no longer improves.

    At the end of every epoch ``last.pt`` gets everything that is needed to go on (network, optimizer, learning-rate
    scheduler, epoch, best value so far); when the validation that just ran is the best yet, ``model.pt`` gets the
    network. Both are written to a temporary file first, so a killed run leaves whole files. List the handler after the
    one that validates. In a process group every rank follows the validation, and rank 0 writes.

    Args:
        directory: folder of ``model.pt`` and ``last.pt``; made when missing.
        network, optimizer, lr_scheduler: the objects to save and restore.
        validator: the evaluator whose ``state.metrics[metric]`` is compared.
        metric: name of the metric that decides which model is best.
        greater_is_better: ``False`` for errors and losses.
        patience: stop when the best epoch lies this many epochs back; ``0`` never stops.
        resume: start from ``last.pt``; without such a file the run starts from the beginning.

    Example:
        >>> import tempfile
        >>> from ignite.engine import Engine
        >>> from monai.engines import SupervisedEvaluator
        >>> network = torch.nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        >>> scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
        >>> validator = SupervisedEvaluator(torch.device("cpu"), [], network)
        >>> trainer = Engine(lambda engine, batch: validator.state.metrics.update(mean_dice=0.5))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     keeper = TrainingCheckpoint(folder, network, optimizer, scheduler, validator, metric="mean_dice")
        ...     keeper.attach(trainer)
        ...     _ = trainer.run([0], max_epochs=2)
        ...     sorted(path.name for path in Path(folder).iterdir()), keeper.best_epoch
        (['last.pt', 'model.pt'], 1)
    """

    def __init__(
        self,
        directory: str | Path,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: torch.optim.lr_scheduler.LRScheduler,
        validator: Evaluator,
        metric: str,
        greater_is_better: bool = True,
        patience: int = 0,
        resume: bool = False,
    ) -> None:
        self.directory = Path(directory)
        self.network = network
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.validator = validator
        self.metric = metric
        self.greater_is_better = greater_is_better
        self.patience = patience
        self.resume = resume
        self.best_value: float | None = None
        self.best_epoch = 0

    def attach(self, engine: Engine) -> None:
        """Registers the handler on the trainer."""
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def started(self, engine: Engine) -> None:
        """Restores ``last.pt`` when the run resumes."""
        path = self.directory / "last.pt"
        if not self.resume:
            return
        if not path.is_file():
            engine.logger.warning(f"nothing to resume: there is no {path}; starting from the beginning")
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        module = getattr(self.network, "module", self.network)  # the network inside DistributedDataParallel
        module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_scheduler.load_state_dict(state["lr_scheduler"])
        self.best_value, self.best_epoch = state["best_value"], state["best_epoch"]
        engine.state.epoch = state["epoch"]
        engine.state.iteration = state["iteration"]

    def epoch_completed(self, engine: Engine) -> None:
        """Compares, saves, and ends the run when patience is over."""
        epoch = engine.state.epoch
        value = self.validator.state.metrics.get(self.metric)
        module = getattr(self.network, "module", self.network)
        write = idist.get_rank() == 0
        if value is not None and self._is_better(float(value)):
            self.best_value, self.best_epoch = float(value), epoch
            if write:
                _save({"model": module.state_dict()}, self.directory / "model.pt")
        if write:
            state = {
                "model": module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "lr_scheduler": self.lr_scheduler.state_dict(),
                "epoch": epoch,
                "iteration": engine.state.iteration,
                "best_value": self.best_value,
                "best_epoch": self.best_epoch,
            }
            _save(state, self.directory / "last.pt")
        if self.patience and epoch - self.best_epoch >= self.patience:
            engine.terminate()

    def _is_better(self, value: float) -> bool:
        if value != value:  # NaN: nothing was measured
            return False
        if self.best_value is None:
            return True
        return value > self.best_value if self.greater_is_better else value < self.best_value


def _save(state: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)
