"""``calibration.npz``: the histograms of an evaluation, exact, case by case; :mod:`.evaluated` says how to read it."""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from monai_calib.files import FileError
from monai_calib.metrics.bins import coarse_of_fine, fine_edges
from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.sums import FIXED_POINT, PROBLEMS, Sums

__all__ = ["CaseTable", "Rest", "Store", "checksum", "lower_edges", "read_array", "write_array"]

ADVICE = "Evaluate the run again."
MOST_ROWS = 1 << 16


class Rest(NamedTuple):
    """Sums of a case that are no bins, ``(regions, ...)`` each."""

    scores: NDArray[np.float64]
    problems: NDArray[np.int64]
    updates: NDArray[np.int64]

    @classmethod
    def of(cls, histograms: Mapping[str, CalibrationHistogram]) -> Rest:
        parts = list(histograms.values())
        return cls(
            np.stack([part.sums.scores.cpu().numpy() for part in parts]),
            np.stack([part.sums.problems.cpu().numpy() for part in parts]),
            np.array([part.updates for part in parts]),
        )


class CaseTable(NamedTuple):
    """The histograms of one case, packed: see the head of the module."""

    bins: NDArray[Any]
    rest: Rest
    settings: dict[str, Any]

    @classmethod
    def pack(cls, histograms: Mapping[str, CalibrationHistogram]) -> CaseTable:
        """Of the same histograms by region, :meth:`unpack` gives the same sums, bit by bit."""
        sums = [histogram.sums.to("cpu") for histogram in histograms.values()]
        first = next(iter(histograms.values()))
        settings = {"regions": list(histograms), "rows": len(sums[0].count), **first.settings()}
        count, hits, soft, confidence = (
            np.stack([getattr(part, name).numpy() for part in sums])
            for name in ("count", "hits", "soft_hits", "confidence")
        )
        place = np.flatnonzero((count != 0) | (hits != 0))
        bins = count.shape[-1]
        units = confidence.ravel()[place] * FIXED_POINT
        whole = units < 2.0**63
        if not (whole.all() and np.array_equal(units.astype(np.int64), units)):  # over 8 billion voxels in a bin
            wide = [
                np.diff(place, prepend=0),
                count.ravel()[place],
                hits.ravel()[place],
                confidence.ravel()[place],
                soft.ravel()[place],
            ]
            return cls(np.stack([line.astype(np.float64) for line in wide]), Rest.of(histograms), settings)
        count = count.ravel()[place]
        lines = [
            np.diff(place, prepend=0),
            count,
            hits.ravel()[place],
            units.astype(np.int64) - count * lower_edges(first.num_bins)[place % bins],
        ]
        if soft.any():
            lines.append(soft.ravel()[place])
        table = np.stack(lines)
        small = not table.size or (table.min() >= 0 and table.max() < 2**32)
        return cls(table.astype(np.uint32) if small else table, Rest.of(histograms), settings)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> CaseTable:
        """The table that :meth:`EvaluatedWriter.state` read back."""
        bins = state["bins"].numpy()
        small = bins.dtype.kind == "i" and (not bins.size or (bins.min() >= 0 and bins.max() < 2**32))
        rest = Rest(*(state[name].numpy() for name in Rest._fields))
        return cls(bins.astype(np.uint32) if small else bins, rest, dict(state["settings"]))

    def unpack(self, region: int) -> CalibrationHistogram:
        """The histogram of the region with this number."""
        kept = {name: self.settings[name] for name in self.settings if name not in ("regions", "rows")}
        histogram = CalibrationHistogram(**kept)
        rows, bins = histogram.sums.count.shape
        whole = self.bins.astype(np.int64)
        steps, count, hits, above, *soft = whole
        place = steps.cumsum()
        inside = (place >= region * rows * bins) & (place < (region + 1) * rows * bins)
        here = place[inside] - region * rows * bins

        def spread(values: NDArray[np.int64]) -> torch.Tensor:
            table = np.zeros(rows * bins, np.int64)
            table[here] = values[inside]
            return torch.from_numpy(table.reshape(rows, bins))

        if self.bins.dtype.kind == "f":
            confidence = torch.zeros(rows * bins, dtype=torch.float64)
            confidence[torch.from_numpy(here)] = torch.from_numpy(self.bins[3][inside])
            confidence = confidence.reshape(rows, bins)
        else:
            confidence = spread(count * lower_edges(histogram.num_bins)[place % bins] + above).double() / FIXED_POINT
        histogram.sums = Sums(
            count=spread(count),
            hits=spread(hits),
            soft_hits=spread(soft[0]) if soft else torch.zeros(rows, bins, dtype=torch.int64),
            confidence=confidence,
            scores=torch.from_numpy(self.rest.scores[region].copy()),
            problems=torch.from_numpy(self.rest.problems[region].copy()),
        )
        histogram.updates = int(self.rest.updates[region])
        return histogram

    def coarse(self, to_coarse: NDArray[np.int64], num_bins: int) -> NDArray[np.float64]:
        """All regions in coarse bins, ``(regions, rows, 3, num_bins)``; ``to_coarse`` has the bin of every fine one."""
        steps, count, hits, above, *soft = self.bins.astype(np.float64)
        row, fine = np.divmod(steps.astype(np.int64).cumsum(), len(to_coarse))
        if self.bins.dtype.kind != "f":
            above = (count * lower_edges(self.settings["num_bins"])[fine] + above) / FIXED_POINT
        if soft:
            hits = hits + soft[0] / FIXED_POINT
        shape = (len(self.settings["regions"]), self.settings["rows"])
        place, size = row * num_bins + to_coarse[fine], math.prod(shape) * num_bins
        sums = [np.bincount(place, weight, size).reshape(*shape, num_bins) for weight in (count, hits, above)]
        return np.stack(sums, axis=2)


class Store:
    """``calibration.npz``, read a case at a time; whatever is wrong with it names the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Store:
        try:
            self._zip = zipfile.ZipFile(self.path)
            self.settings = json.loads(str(self._small("settings")))
            regions, rows = len(self.settings["regions"]), int(self.settings.get("rows", 0))
            bins = len(fine_edges(self.settings["num_bins"])) - 1 if rows else 0
            if not (0 <= rows <= MOST_ROWS and regions <= 4096 and rows == len(self._small("classes")) + self._top()):
                raise ValueError(f"{regions} regions with {rows} rows")
            self._most = 8 * 5 * regions * rows * bins + 4096
            self._cases = [str(name) for name in self._small("cases")]
            shapes = {"scores": (2,), "problems": (len(PROBLEMS),), "updates": ()}
            rest = {name: self._small(name) for name in shapes}
            for name, shape in shapes.items():
                if self._cases and rest[name].shape != (len(self._cases), regions, *shape):
                    raise ValueError(f"{name}: shape {rest[name].shape}")
            self._rest = rest
        except Exception as error:
            self.__exit__()
            raise self._damaged(error) from error
        return self

    def __exit__(self, *exception: object) -> None:
        if hasattr(self, "_zip"):
            self._zip.close()

    def expect(self, cases: Sequence[str], regions: Sequence[str], digest: object) -> None:
        """Raise unless the file holds these cases and regions, and its checksum is this one."""
        if self._cases != list(cases) or self.settings["regions"] != list(regions):
            raise self._damaged("cases or regions that are not those of the calibration.json beside it")
        if digest != checksum(self._zip):
            raise self._damaged("histograms of another evaluation than the calibration.json beside it")

    def coarse(self, case: int, num_bins: int) -> NDArray[np.float64]:
        """Voxels, hits and confidence of a case, ``(regions, rows, 3, num_bins)``, without its fine bins in between."""
        to_coarse = coarse_of_fine(self.settings["num_bins"], num_bins).numpy()
        table = self.table(case)
        try:
            return table.coarse(to_coarse, num_bins)
        except Exception as error:
            raise self._damaged(error) from error

    def histogram(self, case: int, region: int) -> CalibrationHistogram:
        table = self.table(case)
        try:
            return table.unpack(region)
        except Exception as error:
            raise self._damaged(error) from error

    def table(self, case: int) -> CaseTable:
        try:
            table = read_array(self._zip, f"case_{case}", self._most)
            if table.ndim != 2 or table.shape[0] not in (4, 5) or table.dtype.kind not in "uif":
                raise ValueError(f"case_{case}: {table.dtype} {table.shape}")
            rest = Rest(*(self._rest[name][case] for name in Rest._fields))
            return CaseTable(table, rest, self.settings)
        except Exception as error:
            raise self._damaged(error) from error

    def _top(self) -> bool:
        return self.settings.get("activation") == "softmax" and bool(self.settings.get("rows"))

    def _small(self, name: str) -> NDArray[Any]:
        return read_array(self._zip, name, 1 << 28)

    def _damaged(self, reason: object) -> FileError:
        return FileError(f"{self.path}: expected the histograms of an evaluation, got: {reason}. {ADVICE}")


def write_array(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def read_array(archive: zipfile.ZipFile, name: str, most_bytes: int) -> NDArray[Any]:
    """An array of an npz file; its size is known to be right before anything is allocated."""
    info = archive.getinfo(f"{name}.npy")
    if info.file_size > most_bytes:
        raise ValueError(f"{name}: {info.file_size} bytes")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        if version != (1, 0):
            raise ValueError(f"{name}: version {version}")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
        data = member.read()
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{name}: {dtype} {shape} in {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def checksum(archive: zipfile.ZipFile) -> str:
    """Of all members, from their own checksums."""
    text = " ".join(f"{info.filename}:{info.CRC}" for info in sorted(archive.infolist(), key=lambda i: i.filename))
    return f"{zlib.crc32(text.encode()):08x}"


@lru_cache(maxsize=8)
def lower_edges(num_bins: int) -> NDArray[np.int64]:
    """Lower edges of the fine bins in units of 2^-30."""
    return (fine_edges(num_bins)[:-1].double() * FIXED_POINT).long().numpy()
