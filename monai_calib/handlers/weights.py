"""PyTorch files read so that whatever goes wrong names the file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from monai.handlers import CheckpointLoader as _CheckpointLoader

from monai_calib.files import FileError

__all__ = ["CheckpointLoader", "load_trained", "load_weights", "read_checkpoint"]


def read_checkpoint(path: str | os.PathLike[str], map_location: Any = "cpu", advice: str = "") -> Any:
    """Read what ``torch.save`` wrote: tensors and plain values alone, so that no code of the file is run.

    Args:
        path: the file.
        map_location: device of the tensors.
        advice: last sentence of the errors: what to do.

    Raises: ``FileError`` naming the file: missing, empty, truncated, a text, or made to run code.

    Example:
        >>> read_checkpoint("nowhere.pt", advice="Train first.")
        Traceback (most recent call last):
        monai_calib.files.FileError: nowhere.pt: no such file. Train first.
    """
    if not Path(path).is_file():
        raise FileError(f"{path}: no such file. {advice}".rstrip())
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # zip, pickle, EOF, storage: whatever the file makes of the reader
        reason = str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise FileError(
            f"{path}: cannot be read as a PyTorch file of weights ({reason}); it is truncated, damaged or another kind "
            f"of file. {advice}".rstrip()
        ) from error


def load_weights(network: torch.nn.Module, weights: Any, path: str | os.PathLike[str]) -> None:
    """Give a network the weights that were read from ``path``: a state dict, or one under ``"model"``.

    Raises: ``FileError`` naming the file: other names or shapes than the network's, or no weights at all.
    """
    if isinstance(weights, Mapping) and isinstance(weights.get("model"), Mapping):
        weights = weights["model"]
    if not isinstance(weights, Mapping):
        raise FileError(f"{path}: expected weights by name, got {type(weights).__name__}. Name another file.")
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        what = lines[1] if len(lines) > 1 else str(error)
        raise FileError(
            f"{path}: holds the weights of another network than {type(network).__name__} "
            f"({what[:200]}{' …' if len(what) > 200 else ''}). Build the network it was trained as: --network_name, "
            "--dropout, and the number of classes and channels"
        ) from error


def load_trained(network: torch.nn.Module, path: str | os.PathLike[str]) -> torch.nn.Module:
    """Return the network with the weights of a checkpoint. Raises as :func:`load_weights`."""
    load_weights(network, read_checkpoint(path), path)
    return network


class CheckpointLoader(_CheckpointLoader):
    """MONAI's handler of this name, with errors that name the file.

    Example:
        >>> loader = CheckpointLoader("nowhere.pt", {"model": torch.nn.Linear(1, 1)}, map_location="cpu")
        >>> loader(Engine(lambda engine, batch: None))
        Traceback (most recent call last):
        monai_calib.files.FileError: nowhere.pt: no such file. Train first, or name a model with --model_path.
    """

    def __call__(self, engine: Engine) -> None:
        """Read the file into the objects of ``load_dict``."""
        advice = "Train first, or name a model with --model_path."
        state = read_checkpoint(self.load_path, self.map_location, advice)
        if len(self.load_dict) == 1 and self.strict and self.strict_shape:
            (target,) = self.load_dict.values()
            if isinstance(target, torch.nn.Module):
                load_weights(getattr(target, "module", target), state, self.load_path)
                return
        super().__call__(engine)
