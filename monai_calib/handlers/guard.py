"""Stop a training run at the first batch whose loss is not a number, and say which batch and why."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, NamedTuple

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys
from torch import Tensor

from monai_calib.datasets.case import case_name, case_of_file

__all__ = ["NonFiniteGuard", "case_names"]


def case_names(batch: Any) -> list[str]:
    """The cases of a batch, by ``case`` key or file name; nothing but the name leaves the batch.

    Example:
        >>> case_names({"case": ["hippocampus_001", "hippocampus_004"], "image": torch.zeros(2, 1, 4, 4)})
        ['hippocampus_001', 'hippocampus_004']
    """
    if not isinstance(batch, dict):
        return []
    names = batch.get("case")
    if names is not None:
        return [case_name(name) for name in ([names] if isinstance(names, str) else names)]
    meta = getattr(batch.get(CommonKeys.IMAGE), "meta", None) or {}
    files = meta.get("filename_or_obj", [])
    return [case_of_file(file) for file in ([files] if isinstance(files, str) else files)]


class _Look(NamedTuple):
    figures: Tensor
    arrived: torch.cuda.Event | None
    iteration: int
    epoch: int
    cases: list[str]


def _figures(loss: Tensor, pred: Any, label: Any) -> Tensor:
    """Signs that tell reasons apart, one small tensor on the device: is the loss finite, the logits, label range."""
    heads = [head for head in (pred if isinstance(pred, (list, tuple)) else [pred]) if isinstance(head, Tensor)]
    finite = torch.stack([head.detach().isfinite().all() for head in heads]).all() if heads else loss.new_ones(())
    low, high = label.detach().aminmax() if isinstance(label, Tensor) and label.numel() else (0.0, 0.0)
    classes = max((head.shape[1] for head in heads), default=0)
    values = [loss.detach().isfinite(), finite, low, high]
    tensors = [torch.as_tensor(v, dtype=torch.float32, device=loss.device).reshape(()) for v in values]
    return torch.stack([*tensors, torch.full((), float(classes), device=loss.device)])


class NonFiniteGuard:
    """Stops training when the loss is NaN or infinite, naming the cases of the batch and the likely reason.

    On the CPU the loss is looked at before the backward pass, so the weights stay clean. On a GPU a look would make
    the host wait for the device in every step; there a few figures are copied without waiting and read when they have
    arrived, normally one step later and at the latest at the end of the epoch, before a checkpoint is saved.
    An error raised inside a step (a label out of range, on the CPU) gets the names of the batch's cases too. List the
    guard before other handlers, since MONAI's stop at the first that re-raises.

    Args:
        logger_name: of the ``logging`` logger that is told before the error is raised.

    Raises:
        FloatingPointError: in the training run, at the first loss that is not finite.

    Example:
        >>> from monai.engines import SupervisedTrainer
        >>> network = torch.nn.Conv1d(1, 2, 1)
        >>> data = [{"image": torch.full((1, 1, 4), float("inf")), "label": torch.zeros(1, 1, 4), "case": ["c07"]}]
        >>> from monai_calib.losses import build_loss
        >>> trainer = SupervisedTrainer(
        ...     device="cpu", max_epochs=1, train_data_loader=data, network=network,
        ...     optimizer=torch.optim.SGD(network.parameters(), 0.1), loss_function=build_loss("ce"))
        >>> NonFiniteGuard().attach(trainer)
        >>> trainer.logger.disabled = True
        >>> trainer.run()
        Traceback (most recent call last):
        FloatingPointError: The loss is not finite at epoch 1, iteration 1, cases c07: the network's output is not ...
    """

    def __init__(self, logger_name: str = "monai_calib.guard") -> None:
        self.logger = logging.getLogger(logger_name)
        self._pending: deque[_Look] = deque()

    def attach(self, engine: Engine) -> None:
        """Follow the steps of ``engine``, a MONAI trainer."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._look)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._settle)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._name_batch)
        # ignite swallows an exception that none of its handlers raises again: make sure that the last one does
        engine.add_event_handler(Events.STARTED, self._raise_at_last)

    def _look(self, engine: Engine) -> None:
        output: Any = engine.state.output
        loss = output[CommonKeys.LOSS]
        cases = case_names(engine.state.batch)
        state = engine.state
        if loss.device.type == "cpu":
            if not bool(loss.isfinite()):
                figures = _figures(loss, output.get(CommonKeys.PRED), output.get(CommonKeys.LABEL))
                self._stop(_Look(figures, None, state.iteration, state.epoch, cases))
            return
        figures = _figures(loss, output.get(CommonKeys.PRED), output.get(CommonKeys.LABEL))
        host = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True)
        host.copy_(figures, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self._pending.append(_Look(host, arrived, state.iteration, state.epoch, cases))
        self._read(wait=False)

    def _settle(self, engine: Engine) -> None:
        self._read(wait=True)

    def _read(self, wait: bool) -> None:
        while self._pending:
            look = self._pending[0]
            if look.arrived is not None:
                if wait:
                    look.arrived.synchronize()
                elif not look.arrived.query():
                    return
            self._pending.popleft()
            if not look.figures[0]:
                self._stop(look)

    def _stop(self, look: _Look) -> None:
        _, finite, low, high, classes = look.figures.tolist()
        if not finite:
            reason = "the network's output is not finite (learning rate too high, or a corrupt image)"
        elif low < 0 or high >= classes:
            reason = f"the label runs from {low:g} to {high:g} for {classes:g} classes; remap it or set ignore_index"
        else:
            reason = "output and label are finite and in range; the loss overflowed"
        message = (
            f"The loss is not finite at epoch {look.epoch}, iteration {look.iteration}, "
            f"cases {', '.join(look.cases) or 'without names'}: {reason}."
        )
        self._pending.clear()
        self.logger.error(message)
        raise FloatingPointError(message)

    def _name_batch(self, engine: Engine, error: Exception) -> None:
        cases = case_names(engine.state.batch)
        told = str(error)
        if cases and isinstance(error, (ValueError, RuntimeError)) and not any(case in told for case in cases):
            error.args = (f"{told} [epoch {engine.state.epoch}, cases {', '.join(cases)}]",)

    def _raise_at_last(self, engine: Engine) -> None:
        if not engine.has_event_handler(_raise, Events.EXCEPTION_RAISED):
            engine.add_event_handler(Events.EXCEPTION_RAISED, _raise)


def _raise(engine: Engine, error: Exception) -> None:
    raise error
