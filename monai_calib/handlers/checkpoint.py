"""Best and last state of a training run on disk, and the way back into it."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from monai.engines import Evaluator
from monai.handlers import CheckpointLoader

from monai_calib.files import FileError, atomic_path, read_json, write_json
from monai_calib.handlers.progress import validation_value
from monai_calib.handlers.weights import load_weights, read_checkpoint
from monai_calib.lock import FolderLock
from monai_calib.words import counted

__all__ = ["TrainingCheckpoint", "training_settings"]

_LAST = "checkpoint.ckpt"
"""Not ``*.pt``: MONAI Label takes the file of ``models/*.pt`` with the shortest name for the model."""
_FORMER_LAST = "last.pt"


class TrainingCheckpoint:
    """Keeps the best and the last model of a run, resumes it, and stops it when it no longer improves.

    At the end of every epoch ``checkpoint.ckpt`` gets everything that is needed to go on (network, optimizer,
    learning-rate scheduler, scaler of mixed precision, epoch, best value so far); when the validation that just ran is
    the best yet, ``model.pt`` gets the network's state dict. ``training.json`` says how far the run is and with what
    settings. Each is written whole or not at all; its ``seconds`` are those of the epochs that are kept, over all
    resumptions. List the handler after the one that validates. In a process group every rank follows the validation,
    and rank 0 writes. The folder is locked while the run lasts: a second training in it is refused.

    A run is resumed with the settings it was started with, or refused with a list of those that differ. ``epochs``
    alone may change: the schedule of the learning rate is then run anew up to the epoch reached, and ``training.json``
    notes the change under ``epochs_changed``.

    A training that could not write ``model.pt`` is refused before its first epoch: an unknown ``metric``, a validation
    that never comes, a patience that ends before it.

    Args:
        directory: folder of the three files; made when missing.
        network, optimizer, lr_scheduler: the objects to save and restore.
        validator: the evaluator whose ``state.metrics[metric]`` is compared.
        metric: name of the metric that decides which model is best. A handler of your own that adds metrics names them
            in an attribute ``reported``.
        greater_is_better: ``False`` for errors and losses.
        patience: stop when the best epoch lies this many epochs back; ``0`` never stops.
        resume: start from ``checkpoint.ckpt``; without such a file the run starts from the beginning.
        settings: what ``training.json`` should say about the run, as plain values: loss, network, seed ...
        loss: the loss, if it learns something of its own, such as the multipliers of CRaC and CALS.
        val_interval: epochs from one validation to the next.

    Raises:
        ValueError: in the training run, before the first epoch: other settings than the checkpoint's, or no
            ``model.pt`` to be expected.
        FileError: the checkpoint cannot be read, or is of another network.
        FolderInUseError: another process trains in ``directory``.
        RuntimeError: at the end of a run in which ``metric`` was never a number.

    Example:
        >>> import tempfile
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
        ...     sorted(path.name for path in Path(folder).glob("[!.]*")), keeper.best_epoch
        (['checkpoint.ckpt', 'model.pt', 'training.json'], 1)
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
        val_interval: int = 1,
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
        self.settings: dict[str, Any] = json.loads(json.dumps(dict(settings or {}), default=str))
        self.loss = loss
        self.val_interval = val_interval
        self.best_value: float | None = None
        self.best_epoch = 0
        self.epochs_changed: list[dict[str, int]] = []
        self._started_at = time.monotonic()
        self._seconds_before = 0.0
        self._out_of_patience = False
        self._held = ExitStack()

    def attach(self, engine: Engine) -> None:
        """Registers the handler on the trainer."""
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)
        engine.add_event_handler(Events.COMPLETED, self.completed)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._let_go)

    def started(self, engine: Engine) -> None:
        """Lock the folder, restore the checkpoint when the run resumes, and refuse a run that would keep no model."""
        self._started_at = time.monotonic()
        self._out_of_patience = False
        if idist.get_rank() == 0:
            self._held.enter_context(FolderLock(self.directory, "training"))
        if self.resume:
            self._restore(engine)
        else:
            self._refuse_other_network(engine)
        self._refuse_hopeless(engine)

    def _restore(self, engine: Engine) -> None:
        path = self.directory / _LAST
        if not path.is_file() and (self.directory / _FORMER_LAST).is_file():
            path = self.directory / _FORMER_LAST
        if not path.is_file():
            engine.logger.warning(f"nothing to resume: there is no {path}; starting from the beginning")
            return
        advice = "Start anew without --resume, in another run_dir."
        state = read_checkpoint(path, advice=advice)
        if not isinstance(state, dict):
            raise FileError(f"{path}: expected a checkpoint by names, got {type(state).__name__}. {advice}")
        record = self.directory / "training.json"
        if "settings" not in state and record.is_file():  # a checkpoint of 0.1.0
            state |= {name: item for name, item in read_json(record).items() if name in ("settings", "metric")}
        self._refuse_other_settings(path, state)
        load_weights(
            getattr(self.network, "module", self.network), state, path
        )  # the one inside DistributedDataParallel
        starting_rates = [group["lr"] for group in self.optimizer.param_groups]
        try:
            self.optimizer.load_state_dict(state["optimizer"])
            if self.loss is not None:
                self.loss.load_state_dict(state["loss"])
            scaler = getattr(engine, "scaler", None)
            if scaler is not None and state.get("scaler"):
                scaler.load_state_dict(state["scaler"])
            self.best_value, self.best_epoch = state["best_value"], state["best_epoch"]
            self._seconds_before = state.get("seconds", 0.0)
            self.epochs_changed = list(state.get("epochs_changed", []))
            engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
            _check_progress(state)
            then, now = state.get("settings", {}).get("epochs"), self.settings.get("epochs")
            if then == now or then is None or now is None:
                self.lr_scheduler.load_state_dict(state["lr_scheduler"])
            else:
                self._change_epochs(engine, then, now, starting_rates, state["lr_scheduler"])
        except FileError:
            raise
        except Exception as error:  # whatever is in the file
            raise FileError(
                f"{path}: does not fit this training ({type(error).__name__}: {error}). {advice}"
            ) from error

    def _refuse_other_settings(self, path: Path, state: Mapping[str, Any]) -> None:
        now = {**self.settings, "best_metric": self.metric}
        try:
            then = {**state.get("settings", {}), "best_metric": state.get("metric", self.metric)}
            changed = [
                f"{name} {then[name]!r} then, {now[name]!r} now"
                for name in now
                if name in then and name != "epochs" and then[name] != now[name]
            ]
        except Exception as error:  # whatever is in the file
            raise FileError(f"{path}: expected plain settings ({error}). Start anew, in another run_dir.") from error
        if changed:
            raise ValueError(
                f"{path}: was made with other settings: {'; '.join(changed)}. Give them as they were, or train anew "
                "without --resume in another run_dir."
            )

    def _refuse_other_network(self, engine: Engine) -> None:
        """MONAI Label has a loader take whatever fits of the model that lies here, of any network, without a word."""
        for handler, _, _ in engine._event_handlers[Events.STARTED]:
            loader = getattr(handler, "__self__", handler)
            if (
                isinstance(loader, CheckpointLoader)
                and Path(loader.load_path).resolve().parent == self.directory.resolve()
            ):
                then, now = training_settings(self.directory).get("network_name"), self.settings.get("network_name")
                if then and now and then != now:
                    raise ValueError(
                        f"{loader.load_path}: expected the weights of {now!r}, which is to be trained, got those of "
                        f"{then!r}. Set network_name to {then!r} in configs/train.json, or take the model away."
                    )

    def _change_epochs(
        self, engine: Engine, then: int, now: int, starting_rates: list[float], state: dict[str, Any]
    ) -> None:
        """Bring the schedule for the new end to the epoch reached, as if the run had been started with it."""
        epoch = engine.state.epoch
        engine.logger.warning(
            f"epochs: {then} when the run was started, now {now}; the learning rate follows from epoch {epoch + 1}"
            + ("" if now > epoch else f". Nothing is left to train: {counted(epoch, 'epoch')} done")
        )
        self.epochs_changed.append({"after_epoch": epoch, "from": then, "to": now})
        if isinstance(self.lr_scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.lr_scheduler.load_state_dict(state)
            return
        for group, rate in zip(self.optimizer.param_groups, starting_rates, strict=True):
            group["lr"] = rate
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch expects a step of the optimizer before each of the schedule
            for _ in range(epoch):
                self.lr_scheduler.step()

    def _refuse_hopeless(self, engine: Engine) -> None:
        interval, done = self.val_interval, engine.state.epoch
        planned = max(engine.state.max_epochs or 0, self.settings.get("epochs", 0))
        nothing = "so that no model.pt would be written"
        if self.best_value is None and planned > done and planned // interval == done // interval:
            raise ValueError(
                f"val_interval: expected at most {planned}, the number of epochs, got {interval}: no epoch would be "
                f"validated, {nothing}."
            )
        if 0 < self.patience < interval:
            raise ValueError(
                f"early_stop_patience: expected at least val_interval ({interval}), got {self.patience}: training "
                f"would stop before a validation, {nothing}."
            )
        names = _metrics_of(self.validator)
        if names and self.metric not in names:
            raise ValueError(
                f"best_metric: expected one of {', '.join(sorted(names))}, got {self.metric!r}. Choose one of the "
                "validation's metrics."
            )

    def epoch_completed(self, engine: Engine) -> None:
        """Compares, saves, and ends the run when patience is over."""
        epoch = engine.state.epoch
        metrics = self.validator.state.metrics
        if metrics and self.metric not in metrics:
            raise ValueError(f"best_metric: expected one of {', '.join(sorted(metrics))}, got {self.metric!r}.")
        value = validation_value(self.validator, self.metric)
        better = self._is_better(value)
        if better:
            self.best_value, self.best_epoch = value, epoch
        if idist.get_rank() == 0:
            self._write(engine, better)
        if self.patience and epoch - self.best_epoch >= self.patience:
            self._out_of_patience = True
            engine.terminate()

    def completed(self, engine: Engine) -> None:
        """Let the folder go; a run that is over without a best model is an error."""
        self._held.close()
        over = self._out_of_patience or engine.state.epoch >= self.settings.get("epochs", engine.state.max_epochs or 0)
        if over and engine.state.epoch and self.best_value is None:
            raise RuntimeError(
                f"{self.directory / 'model.pt'} was not written: no validation gave a number for {self.metric}. "
                "Look at the labels of the validation cases: they may hold none of the classes."
            )

    def _let_go(self, engine: Engine, error: BaseException) -> None:
        self._held.close()
        raise error

    def _is_better(self, value: float) -> bool:
        if math.isnan(value):  # nothing was measured
            return False
        if self.best_value is None:
            return True
        return value > self.best_value if self.greater_is_better else value < self.best_value

    def _write(self, engine: Engine, better: bool) -> None:
        network = getattr(self.network, "module", self.network).state_dict()
        scaler = getattr(engine, "scaler", None)
        record = {
            "settings": self.settings,
            "metric": self.metric,
            "epoch": engine.state.epoch,
            "best_value": self.best_value,
            "best_epoch": self.best_epoch,
            "seconds": self._seconds_before + time.monotonic() - self._started_at,
            **({"epochs_changed": self.epochs_changed} if self.epochs_changed else {}),
        }
        state = {
            "model": network,
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "loss": {} if self.loss is None else self.loss.state_dict(),
            "scaler": {} if scaler is None else scaler.state_dict(),
            "iteration": engine.state.iteration,
            **record,
        }
        if better:
            with atomic_path(self.directory / "model.pt") as partial:
                torch.save(network, partial)
        with atomic_path(self.directory / _LAST) as partial:
            torch.save(state, partial)
        write_json(self.directory / "training.json", record)


def _check_progress(state: Mapping[str, Any]) -> None:
    counted = {name: state[name] for name in ("epoch", "iteration", "best_epoch")}
    for name, value in counted.items():
        if type(value) is not int or value < 0:
            raise ValueError(f"{name}: expected a whole number, got {value!r:.60}")
    for name in ("best_value", "seconds"):
        value = state.get(name)
        if not isinstance(value, (int, float, type(None))) or isinstance(value, bool):
            raise ValueError(f"{name}: expected a number, got {value!r:.60}")


def training_settings(directory: str | Path) -> dict[str, Any]:
    """Settings of the run in ``directory``, by its ``training.json``; empty for a model without one.

    Raises: ``FileError`` naming a file that is damaged or no record of a training.

    Example:
        >>> training_settings("a folder with nothing but a model")
        {}
    """
    path = Path(directory) / "training.json"
    if not path.is_file():
        return {}
    advice = "Remove it, and name network and patch size on the command line."
    record = read_json(path, advice=advice)
    settings = record.get("settings") if isinstance(record, dict) else None
    if not isinstance(settings, dict):
        raise FileError(f"{path}: expected the record of a training with its settings, got another content. {advice}")
    return settings


def _metrics_of(validator: Evaluator) -> set[str]:
    """Names of the metrics that a validation will report; empty where a handler of unknown kind may add some."""
    names: set[str] = set()
    for handlers in validator._event_handlers.values():
        for handler, arguments, _ in handlers:
            owner = getattr(handler, "__self__", handler)
            if isinstance(owner, Metric):
                names |= {argument for argument in arguments if isinstance(argument, str)}
            elif hasattr(owner, "reported"):
                names |= set(owner.reported)
            elif (getattr(owner, "__module__", None) or "").partition(".")[0] not in ("monai", "ignite", "monai_calib"):
                return set()
    return names
