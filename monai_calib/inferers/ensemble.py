"""The average of networks that were trained apart: a deep ensemble."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from monai_calib.handlers.weights import load_weights, read_checkpoint
from monai_calib.inferers.averaging import AveragingInferer

__all__ = ["EnsembleInferer", "find_checkpoints"]


class EnsembleInferer(AveragingInferer):
    """Averages the probabilities of several checkpoints of one network, loaded into it one after another.

    In memory are the weights of all checkpoints on the CPU, one network on its device, and two volumes of logits. The
    network is left with the weights of the last one.

    Args:
        checkpoints: files with the state dict of a member, or with a mapping that has it under ``"model"``.
        inferer: makes one member's prediction, see :class:`AveragingInferer`.

    Raises: ``ValueError`` for no checkpoint; ``FileError`` naming a file without weights, or with another network's.
    Source: Lakshminarayanan et al., NeurIPS 2017; https://arxiv.org/abs/1612.01474

    Example:
        >>> import tempfile
        >>> network, image = nn.Conv2d(1, 2, kernel_size=1), torch.ones(1, 1, 4, 4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     paths = [os.path.join(folder, name) for name in ("a.pt", "b.pt")]
        ...     for path in paths:
        ...         network.reset_parameters()
        ...         torch.save(network.state_dict(), path)
        ...     ensemble = EnsembleInferer(paths)
        >>> round(ensemble(image, network).exp().sum(dim=1).mean().item(), 6)
        1.0
    """

    def __init__(
        self, checkpoints: Sequence[str | os.PathLike[str]], inferer: Callable[..., torch.Tensor] | None = None
    ) -> None:
        super().__init__(inferer)
        if not checkpoints:
            raise ValueError("checkpoints: expected at least one file, got none")
        self.checkpoints = [os.fspath(path) for path in checkpoints]
        self._weights = [read_checkpoint(path) for path in self.checkpoints]

    def predictions(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Iterator[torch.Tensor]:
        if not isinstance(network, nn.Module):
            raise TypeError(f"network: expected a torch.nn.Module to load weights into, got {type(network).__name__}")
        for path, weights in zip(self.checkpoints, self._weights, strict=True):
            load_weights(network, weights, path)
            yield self.inferer(inputs, network, *args, **kwargs)


def find_checkpoints(runs: str | Sequence[str], name: str = "model.pt") -> list[str]:
    """The files ``models/<name>`` of run folders, in the order of their names.

    Args:
        runs: a pattern, such as ``"runs/ce/seed_*"``, or a list of folders.
        name: file in the folder ``models`` of each.

    Raises: ``FileNotFoundError`` if there is none, or a folder of the list has none.
    """
    folders = sorted(glob.glob(runs)) if isinstance(runs, str) else list(runs)
    paths = [os.path.join(folder, "models", name) for folder in folders]
    missing = [path for path in paths if not os.path.isfile(path)]
    if not paths or missing:
        raise FileNotFoundError(
            f"members: expected run folders that hold models/{name}, "
            + (f"but there is no {missing[0]}" if missing else f"but no folder matches {runs!r}")
            + "; name them as --members 'RUNS/seed_*' or --members \"['RUN', 'RUN']\""
        )
    return paths
