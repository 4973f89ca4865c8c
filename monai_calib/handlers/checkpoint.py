"""Best and last state of a training run on disk, and the way back into it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator

__all__ = ["TrainingCheckpoint", "training_settings"]


class TrainingCheckpoint:
    """Keeps the best and the last model of a run, resumes it, and stops it when it no longer improves.

    At the end of every epoch ``last.pt`` gets everything that is needed to go on (network, optimizer, learning-rate
    scheduler, epoch, best value so far); when the validation that just ran is the best yet, ``model.pt`` gets the
    network's state dict. ``training.json`` says how far the run is and what it was started with. Each is written to a
    temporary file first, so a killed run leaves whole files; its ``seconds`` are those of the epochs that are kept,
    over all resumptions. List the handler after the one that validates. In a process group every rank follows the
    validation, and rank 0 writes.

    Args:
        directory: folder of the three files; made when missing.
        network, optimizer, lr_scheduler: the objects to save and restore.
        validator: the evaluator whose ``state.metrics[metric]`` is compared.
        metric: name of the metric that decides which model is best.
        greater_is_better: ``False`` for errors and losses.
        patience: stop when the best epoch lies this many epochs back; ``0`` never stops.
        resume: start from ``last.pt``; without such a file the run starts from the beginning.
        settings: what ``training.json`` should say about the run, as plain values: loss, network, seed ...
        loss: the loss, if it learns something of its own, such as the multipliers of CRaC and CALS.

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
        (['last.pt', 'model.pt', 'training.json'], 1)
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
        settings: Mapping[str, Any] | None = None,
        loss: torch.nn.Module | None = None,
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
        self.settings = dict(settings or {})
        self.loss = loss
        self.best_value: float | None = None
        self.best_epoch = 0
        self._started_at = time.monotonic()
        self._seconds_before = 0.0

    def attach(self, engine: Engine) -> None:
        """Registers the handler on the trainer."""
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def started(self, engine: Engine) -> None:
        """Restores ``last.pt`` when the run resumes."""
        self._started_at = time.monotonic()
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
        if self.loss is not None:
            self.loss.load_state_dict(state["loss"])
        self.best_value, self.best_epoch = state["best_value"], state["best_epoch"]
        self._seconds_before = state.get("seconds", 0.0)
        engine.state.epoch = state["epoch"]
        engine.state.iteration = state["iteration"]

    def epoch_completed(self, engine: Engine) -> None:
        """Compares, saves, and ends the run when patience is over."""
        epoch = engine.state.epoch
        value = self.validator.state.metrics.get(self.metric)
        better = value is not None and self._is_better(float(value))
        if better:
            self.best_value, self.best_epoch = float(value), epoch
        if idist.get_rank() == 0:
            self._write(engine, better)
        if self.patience and epoch - self.best_epoch >= self.patience:
            engine.terminate()

    def _is_better(self, value: float) -> bool:
        if value != value:  # NaN: nothing was measured
            return False
        if self.best_value is None:
            return True
        return value > self.best_value if self.greater_is_better else value < self.best_value

    def _write(self, engine: Engine, better: bool) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        network = getattr(self.network, "module", self.network).state_dict()
        reached = {
            "epoch": engine.state.epoch,
            "best_value": self.best_value,
            "best_epoch": self.best_epoch,
            "seconds": self._seconds_before + time.monotonic() - self._started_at,
        }
        state = {
            "model": network,
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "loss": {} if self.loss is None else self.loss.state_dict(),
            "iteration": engine.state.iteration,
            **reached,
        }
        if better:
            _replace(self.directory / "model.pt", lambda path: torch.save(network, path))
        _replace(self.directory / "last.pt", lambda path: torch.save(state, path))
        text = json.dumps({"settings": self.settings, "metric": self.metric, **reached}, indent=2) + "\n"
        _replace(self.directory / "training.json", lambda path: path.write_text(text, encoding="utf-8"))


def training_settings(directory: str | Path) -> dict[str, Any]:
    """Settings that the run in ``directory`` was started with, by its ``training.json``; empty for a model without one.

    Example:
        >>> training_settings("a folder with nothing but a model")
        {}
    """
    path = Path(directory) / "training.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))["settings"]) if path.is_file() else {}


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    write(temporary)
    os.replace(temporary, path)
