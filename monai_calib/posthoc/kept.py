"""Cases kept on disk after one pass of the network, so that fits and comparisons need no other."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from monai_calib.posthoc.stream import LogitCase

__all__ = ["CaseStream", "KeptCases"]

_log = logging.getLogger(__name__)


class CaseStream(Protocol):
    """A source of cases that can be kept: a :class:`~.stream.LogitStream`, or maps that are stored elsewhere."""

    def numbered(self, without: Collection[int] = ()) -> Iterator[tuple[int, LogitCase | None]]:
        """The cases with their numbers from 0; None for those of ``without``, which cost nothing."""


class KeptCases:
    """The cases of a stream, whole volumes in memory-mapped files of a temporary folder.

    The first iteration runs the network and keeps what fits into ``most_bytes`` of disk; later ones read the files, and
    run the network again for the cases that did not fit, so that fits are exact whatever the size. In memory is one
    case at a time. Masks of the user's own are kept too. The folder goes with this object.

    Args:
        stream: what to keep.
        most_bytes: of files.
        with_images: whether to keep images: the local temperature reads them.

    Example:
        >>> from monai_calib.posthoc.stream import LogitStream
        >>> loader = [{"image": torch.zeros(1, 1, 4, 4), "label": torch.zeros(1, 1, 4, 4)}]
        >>> kept = KeptCases(LogitStream(torch.nn.Conv2d(1, 3, 1), loader))
        >>> [case.name for case in kept] == [case.name for case in kept]
        True
        >>> kept.network_runs
        1
    """

    def __init__(self, stream: CaseStream, most_bytes: int = 8 * 2**30, with_images: bool = False) -> None:
        self.stream = stream
        self.most_bytes = most_bytes
        self.with_images = with_images
        self.bytes = 0
        self.network_runs = 0
        self._folder = tempfile.TemporaryDirectory(prefix="monai_calib-")
        self._kept: dict[int, dict[str, Any]] = {}
        self._cases = 0

    def __iter__(self) -> Iterator[LogitCase]:
        if self._cases and len(self._kept) == self._cases:
            for number in range(self._cases):
                yield self._read(number)
            return
        number = 0
        for number, case in self.stream.numbered(frozenset(self._kept)):  # its last value is read
            if case is None:
                yield self._read(number)
                continue
            self.network_runs += 1
            self._keep(number, case)
            yield case
        if not self._cases:
            self._cases = number + 1 if self.network_runs else 0
            if len(self._kept) < self._cases:
                _log.info(
                    "%d of %d cases kept in %.1f GB; the network runs again for the others in every pass",
                    *(len(self._kept), self._cases, self.bytes / 1e9),
                )

    def _keep(self, number: int, case: LogitCase) -> None:
        kind = torch.int16 if abs(case.ignore_index or 0) < 2**15 and len(case.logits) < 2**15 else torch.int32
        label = case.label.to(kind)
        label = label if case.ignored is None else label.masked_fill(case.ignored, case.ignore_index or 0)
        tensors = {"logits": case.logits, "label": label, **{f"mask_{k}": v for k, v in self._masks(case).items()}}
        if self.with_images and case.image is not None:
            tensors["image"] = case.image
        arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
        size = sum(array.nbytes for array in arrays.values())
        if self.bytes + size > self.most_bytes:
            return
        for name, array in arrays.items():
            np.save(self._path(number, name), array)
        self.bytes += size
        self._kept[number] = {
            "names": list(arrays),
            "device": case.logits.device,
            "name": case.name,
            "spacing": case.spacing,
            "ignore_index": case.ignore_index,
            "subject": case.subject,
        }

    @staticmethod
    def _masks(case: LogitCase) -> dict[str, Tensor]:
        """Of the loader's tensors those that may be masks: on the label's grid, one channel, no image."""
        grid = case.label.shape
        return {
            key: value
            for key, value in case.data.items()
            if key not in ("image", "label") and value.shape in (grid, (1, *grid))
        }

    def _read(self, number: int) -> LogitCase:
        kept = self._kept[number]
        found = {}
        with warnings.catch_warnings():  # read-only maps: nothing writes to them
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            for name in kept["names"]:
                found[name] = torch.from_numpy(np.load(self._path(number, name), mmap_mode="r")).to(kept["device"])
        return LogitCase(
            name=kept["name"],
            logits=found["logits"],
            label=found["label"],
            image=found.get("image"),
            spacing=kept["spacing"],
            ignore_index=kept["ignore_index"],
            data={name.removeprefix("mask_"): value for name, value in found.items() if name.startswith("mask_")},
            subject=kept["subject"],
        )

    def _path(self, number: int, name: str) -> Path:
        return Path(self._folder.name, f"{number}_{name}.npy")
