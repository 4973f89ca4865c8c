"""Cases kept on disk after one pass of the network, whole or as samples, so that fits and comparisons need no other."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
import warnings
import weakref
from collections.abc import Collection, Iterable, Iterator, Sized
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from monai_calib.lock import FolderInUseError, FolderLock
from monai_calib.metrics.regions import Region
from monai_calib.posthoc.distance import distance_in_boxes
from monai_calib.posthoc.sample import Distances, SampledCase, sample_case
from monai_calib.posthoc.stream import LogitCase
from monai_calib.words import counted

__all__ = ["CaseStream", "KeptCases"]

UNKNOWN_NUMBER = 64
_log = logging.getLogger(__name__)


class CaseStream(Protocol):
    """A source of cases that can be kept: a :class:`~.stream.LogitStream`, or maps that are stored elsewhere."""

    def numbered(self, without: Collection[int] = ()) -> Iterator[tuple[int, LogitCase | None]]:
        """The cases with their numbers from 0; None for those of ``without``, which cost nothing."""


class KeptCases:
    """The cases of a stream in memory-mapped files of a temporary folder, at most ``most_bytes`` of them.

    The first iteration runs the network once over every case; later ones read the files. A case that fits into its
    share of the bytes left is kept whole, else as a sample whose strata carry inclusion weights (see
    :func:`~.sample.sample_case`). In memory is one case at a time. Masks of the user's own are kept too, with whole
    cases. The folder goes with this object; one that a killed process left goes with the next.

    Args:
        stream: what to keep.
        most_bytes: of files.
        with_images: keep images, and no samples: the local temperature reads neighbourhoods. For cases that do not fit
            the network then runs again in every pass.
        regions: whose masks a sample keeps beside that of the whole volume.
        reach: up to which distance from the predicted boundary, in mm, a sample knows it.
        slice_axis: see :class:`~.base.Calibrator`: distances are then those within slices.

    Example:
        >>> from monai_calib.posthoc.stream import LogitStream
        >>> loader = [{"image": torch.zeros(1, 1, 4, 4), "label": torch.zeros(1, 1, 4, 4)}]
        >>> kept = KeptCases(LogitStream(torch.nn.Conv2d(1, 3, 1), loader))
        >>> [case.name for case in kept] == [case.name for case in kept]
        True
        >>> kept.network_runs
        1
    """

    def __init__(
        self,
        stream: CaseStream,
        most_bytes: int = 8 * 2**30,
        with_images: bool = False,
        regions: Iterable[str | Region] = (),
        reach: float = 8.0,
        slice_axis: int | None = None,
    ) -> None:
        self.stream = stream
        self.most_bytes = most_bytes
        self.with_images = with_images
        self.regions = [Region.parse("union"), *map(Region.parse, regions)]
        self.reach = reach
        self.slice_axis = slice_axis
        self.bytes = 0
        self.network_runs = 0
        self.sampled = 0
        self.voxels = [0, 0]  # kept, seen
        held = ExitStack()
        self._folder = Path(held.enter_context(_temporary_folder()))
        weakref.finalize(self, held.close)
        self._kept: dict[int, dict[str, Any]] = {}
        self._cases = 0

    def every(self, step: int, first: int) -> Iterable[LogitCase]:
        """Every ``step``-th case from ``first`` on, such as one channel of a :class:`~.sigmoid.SigmoidStream`."""
        return _Every(self, step, first)

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
            kept = self._keep(number, case)
            del case  # or it would stay while the network makes the next
            yield kept
            del kept
        if not self._cases:
            self._cases = number + 1 if self.network_runs else 0
            if self.sampled:
                _log.info(
                    "%d of %s kept as samples: %.3g of %.3g voxels in %.1f GB",
                    *(self.sampled, counted(self._cases, "case"), *self.voxels, self.bytes / 1e9),
                )
            if len(self._kept) < self._cases:
                _log.info(
                    "%d of %s kept in %.1f GB; the network runs again for the others in every pass",
                    *(len(self._kept), counted(self._cases, "case"), self.bytes / 1e9),
                )

    def _keep(self, number: int, case: LogitCase) -> LogitCase:
        """Keep a case, whole if it fits; returns what was kept, as every later pass will see it."""
        self.voxels[1] += case.count("all")
        whole = self._whole(case)
        size = sum(array.nbytes for array in whole.values())
        share = (self.most_bytes - self.bytes) // max(1, self._number_of_cases(number) - number)
        if size <= share:
            self._save(number, whole, size, case)
            self.voxels[0] += case.count("all")
            return case
        if self.with_images:
            return case
        per_voxel = (
            4 * len(case.logits) + 4 + 4 + 4 + len(self.regions) + 2 * (0 if case.raters is None else len(case.raters))
        )
        sample = sample_case(case, share // per_voxel, self.regions, self._distances(case), seed=number)
        arrays = self._of_sample(sample)
        self._save(number, arrays, sum(array.nbytes for array in arrays.values()), sample)
        self.sampled += 1
        self.voxels[0] += len(sample.weight)
        return sample

    def _number_of_cases(self, number: int) -> int:
        source = getattr(self.stream, "loader", self.stream)
        dataset = getattr(source, "dataset", source)
        if not isinstance(dataset, Sized):
            return max(UNKNOWN_NUMBER, 2 * number)
        return len(dataset) * int(getattr(self.stream, "problems_per_case", 1))

    def _whole(self, case: LogitCase) -> dict[str, np.ndarray[Any, Any]]:
        kind = _kind(case)
        label = case.label.to(kind)
        label = label if case.ignored is None else label.masked_fill(case.ignored, case.ignore_index or 0)
        tensors = {"logits": case.logits, "label": label, **{f"mask_{k}": v for k, v in self._masks(case).items()}}
        if case.raters is not None:
            tensors["raters"] = case.raters.to(kind)
        if self.with_images and case.image is not None:
            tensors["image"] = case.image
        return {name: value.detach().cpu().numpy() for name, value in tensors.items()}

    def _of_sample(self, sample: SampledCase) -> dict[str, np.ndarray[Any, Any]]:
        tensors = {"logits": sample.logits, "label": sample.label.int(), "weight": sample.weight.int()}
        tensors |= {f"region_{region}": sample.mask(region) for region in self.regions}
        if sample.raters is not None:
            tensors["raters"] = sample.raters.to(_kind(sample))
        if sample.distances is not None:
            tensors["distance"] = sample.distances.values
        return {name: value.detach().cpu().numpy() for name, value in tensors.items()}

    def _distances(self, case: LogitCase) -> Distances | None:
        if case.spacing is None:
            return None
        axis = self.slice_axis
        across = [step for i, step in enumerate(case.spacing) if i != axis]
        classes, volume = len(case.logits), case.predicted
        if axis is None:
            values = distance_in_boxes(volume, classes, across, self.reach)
        else:
            slices = [distance_in_boxes(part, classes, across, self.reach) for part in volume.unbind(axis)]
            values = torch.stack(slices, axis)
        return Distances(values, tuple(across), self.reach)

    def _save(self, number: int, arrays: dict[str, np.ndarray[Any, Any]], size: int, case: LogitCase) -> None:
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
            "distances": case.distances if isinstance(case, SampledCase) else None,
        }
        if self._kept[number]["distances"] is not None:
            self._kept[number]["distances"] = self._kept[number]["distances"]._replace(values=torch.zeros(0))

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
        shared = {"spacing": kept["spacing"], "subject": kept["subject"], "raters": found.get("raters")}
        if "weight" in found:
            distances = kept["distances"] and kept["distances"]._replace(values=found["distance"])
            masks = {n.removeprefix("region_"): v for n, v in found.items() if n.startswith("region_")}
            logits, label, weight = found["logits"], found["label"], found["weight"].long()
            shared["ignore_index"] = kept["ignore_index"]
            return SampledCase(kept["name"], logits, label, weight, masks, distances, **shared)
        return LogitCase(
            name=kept["name"],
            logits=found["logits"],
            label=found["label"],
            image=found.get("image"),
            ignore_index=kept["ignore_index"],
            data={name.removeprefix("mask_"): value for name, value in found.items() if name.startswith("mask_")},
            **shared,
        )

    def _path(self, number: int, name: str) -> Path:
        return Path(self._folder, f"{number}_{name.replace(':', '-')}.npy")


_PREFIX = "monai_calib-"
_JUST_MADE = 60.0  # seconds


@contextmanager
def _temporary_folder() -> Iterator[str]:
    """A folder that goes with the block, after those of killed processes: their locks are free.

    A lock tells of processes in other containers too, which the number of a process does not.
    """
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/.lock"):
        with suppress(OSError, FolderInUseError):  # another user's; in use
            if time.time() - lock.stat().st_mtime > _JUST_MADE:
                with FolderLock(lock.parent, "tidying up"):
                    pass
                shutil.rmtree(lock.parent)
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder, FolderLock(folder, "keeping logits"):
        yield folder


class _Every:
    """Cases number ``first``, ``first + step`` ..., at each iteration the same."""

    def __init__(self, kept: KeptCases, step: int, first: int) -> None:
        self.kept = kept
        self.step = step
        self.first = first

    def __iter__(self) -> Iterator[LogitCase]:
        kept = self.kept
        if kept._cases and len(kept._kept) == kept._cases:
            return map(kept._read, range(self.first, kept._cases, self.step))
        return islice(kept, self.first, None, self.step)


def _kind(case: LogitCase) -> torch.dtype:
    """The smallest type that holds class numbers and the ignored one."""
    return torch.int16 if abs(case.ignore_index or 0) < 2**15 and len(case.logits) < 2**15 else torch.int32
