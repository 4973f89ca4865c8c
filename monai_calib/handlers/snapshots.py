"""Snapshots of one training, to be averaged: the cheap ensemble."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from ignite.engine import Engine, Events

from monai_calib.files import atomic_path
from monai_calib.handlers.ranks import rank
from monai_calib.words import counted

__all__ = ["SnapshotHandler", "find_snapshots", "snapshot_epochs"]

FOLDER = "snapshots"


class SnapshotHandler:
    """Keeps the network's weights after evenly spaced epochs of the second half of a training.

    They are ``directory/snapshots/epoch_0020.pt`` and so on, state dicts like ``model.pt``; their average by
    :class:`~monai_calib.inferers.EnsembleInferer` costs one training.

    Args:
        directory: the models folder.
        network: whose weights are kept.
        count: snapshots; none for 0.
        epochs: planned, the last of which is a snapshot.

    Source: of the idea, Huang et al., Snapshot Ensembles, ICLR 2017; https://arxiv.org/abs/1704.00109 (with a cyclic
        learning rate, which this does not set).
    """

    def __init__(self, directory: str | os.PathLike[str], network: torch.nn.Module, count: int, epochs: int) -> None:
        self.directory = Path(directory, FOLDER)
        self.network = network
        self.epochs = frozenset(snapshot_epochs(epochs, count))

    def attach(self, engine: Engine) -> None:
        if self.epochs:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if engine.state.epoch in self.epochs and rank() == 0:
            state = getattr(self.network, "module", self.network).state_dict()
            with atomic_path(self.directory / f"epoch_{engine.state.epoch:04d}.pt") as partial:
                torch.save(state, partial)


def snapshot_epochs(epochs: int, count: int) -> list[int]:
    """Epochs after which a snapshot is taken, in order.

    Raises: ``ValueError`` for a negative number, or more snapshots than half of the epochs.

    Example:
        >>> snapshot_epochs(40, 4)
        [25, 30, 35, 40]
    """
    if not 0 <= count <= max(1, epochs // 2):
        raise ValueError(
            f"snapshots: expected 0 to {max(1, epochs // 2)} in the second half of {counted(epochs, 'epoch')}, got "
            f"{count}"
        )
    step = (epochs // 2) / count if count else 0.0
    return [round(epochs - step * (count - 1 - i)) for i in range(count)]


def find_snapshots(directory: str | os.PathLike[str]) -> list[str]:
    """Paths of the snapshots in a models folder, in the order of their epochs.

    Raises: ``FileNotFoundError`` if there is none.
    """
    found = sorted(Path(directory, FOLDER).glob("epoch_*.pt"))
    if not found:
        raise FileNotFoundError(
            f"{Path(directory, FOLDER)}: expected snapshots of a training, got none. Train with --snapshots 4."
        )
    return [os.fspath(path) for path in found]
