"""Stop a training run at the first loss, and in the epoch of the first gradient, that is not a number, and say why."""

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
    signs: Tensor
    arrived: torch.cuda.Event | None
    iteration: int
    epoch: int
    cases: list[str]


def _signs(output: dict[str, Any]) -> Tensor:
    """Signs that tell reasons apart, one small tensor on the device: finite loss, logits, image; range of labels."""
    loss, pred, label = (output.get(key) for key in (CommonKeys.LOSS, CommonKeys.PRED, CommonKeys.LABEL))
    assert isinstance(loss, Tensor)
    image = output.get(CommonKeys.IMAGE)
    heads = [head for head in (pred if isinstance(pred, (list, tuple)) else [pred]) if isinstance(head, Tensor)]
    finite = torch.stack([head.detach().isfinite().all() for head in heads]).all() if heads else loss.new_ones(())
    low, high = label.detach().aminmax() if isinstance(label, Tensor) and label.numel() else (0.0, 0.0)
    classes = max((head.shape[1] for head in heads), default=0)
    read = image.detach().isfinite().all() if isinstance(image, Tensor) else 1.0
    values = [loss.detach().isfinite(), finite, low, high, read]
    tensors = [torch.as_tensor(v, dtype=torch.float32, device=loss.device).reshape(()) for v in values]
    return torch.stack([*tensors, torch.full((), float(classes), device=loss.device)])


class NonFiniteGuard:
    """Stops training when the loss is NaN or infinite, naming the cases of the batch and the reason.

    On the CPU the loss is looked at before the backward pass, so the weights stay clean. On a GPU a look would make
    the host wait for the device in every step; there a few signs are copied without waiting and read when they have
    arrived, normally one step later and at the latest at the end of the epoch, before a checkpoint is saved.
    An error raised inside a step (a label out of range, on the CPU) gets the names of the batch's cases too; one that
    comes from loading, validation or a checkpoint does not. List the guard before other handlers, since MONAI's stop at
    the first that re-raises.

    At the end of each epoch weights, gradients and the optimizer's memory of them are looked at, before a checkpoint is
    saved: a gradient that is not finite need not show in the loss, and the weights it belongs to never move again. Then
    images and labels were not the reason, since the loss was finite.

    Args:
        logger_name: of the ``logging`` logger that is told before the error is raised.

    Raises:
        FloatingPointError: in the training run, at the first loss that is not finite, or at the end of the first epoch
            with a gradient that is not.

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
        FloatingPointError: The loss is not finite at epoch 1, iteration 1, cases c07: an image holds voxels ...
    """

    def __init__(self, logger_name: str = "monai_calib.guard") -> None:
        self.logger = logging.getLogger(logger_name)
        self._pending: deque[_Look] = deque()
        self._in_step = False

    def attach(self, engine: Engine) -> None:
        """Follow the steps of ``engine``, a MONAI trainer."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._look)
        engine.add_event_handler(Events.ITERATION_STARTED, self._step, True)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step, False)
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
                self._stop(_Look(_signs(output), None, state.iteration, state.epoch, cases))
            return
        signs = _signs(output)
        host = torch.empty(signs.shape, dtype=signs.dtype, pin_memory=True)
        host.copy_(signs, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self._pending.append(_Look(host, arrived, state.iteration, state.epoch, cases))
        self._read(wait=False)

    def _step(self, engine: Engine, begins: bool) -> None:
        self._in_step = begins

    def _settle(self, engine: Engine) -> None:
        self._read(wait=True)
        named = _not_finite(engine)
        if named:
            raise FloatingPointError(
                f"Epoch {engine.state.epoch}: {named} not finite, although every loss was. It is not the data. Lower "
                "the learning rate; with bfloat16, train once without it to see whether this processor's library is "
                "to blame."
            )

    def _read(self, wait: bool) -> None:
        while self._pending:
            look = self._pending[0]
            if look.arrived is not None:
                if wait:
                    look.arrived.synchronize()
                elif not look.arrived.query():
                    return
            self._pending.popleft()
            if not look.signs[0]:
                self._stop(look)

    def _stop(self, look: _Look) -> None:
        _, finite, low, high, read, classes = look.signs.tolist()
        if not read:
            reason = "an image holds voxels that are not finite; repair it, or take the case out of the list"
        elif not finite:
            reason = "the network's output is not finite, although the images are; lower the learning rate"
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
        cases = case_names(engine.state.batch) if self._in_step and getattr(error, "blames_case", True) else []
        told = str(error)
        if cases and isinstance(error, (ValueError, RuntimeError)) and not any(case in told for case in cases):
            error.args = (f"{told} [epoch {engine.state.epoch}, cases {', '.join(cases)}]",)

    def _raise_at_last(self, engine: Engine) -> None:
        if not engine.has_event_handler(_raise, Events.EXCEPTION_RAISED):
            engine.add_event_handler(Events.EXCEPTION_RAISED, _raise)


def _not_finite(engine: Engine) -> str:
    """The first weight whose value, gradient or memory in the optimizer is not finite, in words; empty if none is."""
    network, optimizer = getattr(engine, "network", None), getattr(engine, "optimizer", None)
    if network is None or optimizer is None:
        return ""
    scaled = getattr(engine, "scaler", None) is not None  # mixed precision expects infinite gradients and skips them
    looked: list[tuple[str, Tensor]] = []
    for name, parameter in network.named_parameters():
        kept = [("the optimizer's memory", item) for item in optimizer.state.get(parameter, {}).values()]
        gradient = [] if scaled or parameter.grad is None else [("the gradient", parameter.grad)]
        for what, item in [("the weight", parameter.detach()), *gradient, *kept]:
            if isinstance(item, Tensor) and item.is_floating_point():
                looked.append((f"{what} of {name} is", item.isfinite().all().to(parameter.device)))
    if not looked:
        return ""
    finite = torch.stack([look for _, look in looked]).tolist()  # one wait for the device
    return next((what for (what, _), is_finite in zip(looked, finite, strict=True) if not is_finite), "")


def _raise(engine: Engine, error: Exception) -> None:
    raise error
