"""Prepared cases kept on disk between runs, whole or not at all, and made anew when a file of the case changes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from hashlib import sha256
from typing import Any

import torch
from monai.data import PersistentDataset
from monai.utils import convert_to_tensor

from ..files import atomic_path

__all__ = ["PreparedDataset"]


class PreparedDataset(PersistentDataset):
    """MONAI's ``PersistentDataset``, safe against kills, damaged files and data replaced in place.

    What is prepared is written beside its target and renamed; MONAI copies it from the temporary folder, and a process
    killed meanwhile leaves a file that no later run gets past. Anything that cannot be read is named in a warning,
    removed and prepared again. The name under which a case is kept holds size and time of change of its files.

    Arguments are those of ``PersistentDataset``.
    """

    def _cachecheck(self, item_transformed: Any) -> Any:
        if self.cache_dir is None:
            return self._pre_transform(deepcopy(item_transformed))
        case = self.hash_func(item_transformed).decode("utf-8")
        kept = self.cache_dir / f"{case}-{_state_of_files(item_transformed)}{self.transform_hash}.pt"
        if kept.is_file():
            try:
                return torch.load(kept, weights_only=self.weights_only)
            except Exception as error:  # zip, pickle and torch raise many kinds
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                warnings.warn(f"{kept}: cannot be read ({reason}); removed, and prepared again.", stacklevel=2)
                with suppress(OSError):
                    kept.unlink()
        prepared = self._pre_transform(deepcopy(item_transformed))
        try:
            with atomic_path(kept) as partial:
                torch.save(
                    convert_to_tensor(prepared, convert_numeric=False, track_meta=self.track_meta),
                    partial,
                    pickle_protocol=self.pickle_protocol,
                )
        except PermissionError as error:  # a folder that others keep: read from it all the same
            warnings.warn(f"{kept}: cannot be written ({error}); the case is prepared each time.", stacklevel=2)
            return prepared
        for former in self.cache_dir.glob(f"{case}-*{self.transform_hash}.pt"):
            if former != kept:
                former.unlink(missing_ok=True)
        return prepared


def _state_of_files(item: Any) -> str:
    """A short digest of size and time of change of all the files an item names."""
    states = []
    for value in _texts(item):
        with suppress(OSError, ValueError):
            state = os.stat(value)
            states.append((value, state.st_size, state.st_mtime_ns))
    return sha256(repr(states).encode()).hexdigest()[:16]


def _texts(item: Any) -> Iterator[str]:
    if isinstance(item, (str, os.PathLike)):
        yield str(item)
    elif isinstance(item, Mapping):
        for key in item:
            if key not in ("case", "subject"):
                yield from _texts(item[key])
    elif isinstance(item, (list, tuple)):
        for value in item:
            yield from _texts(value)
