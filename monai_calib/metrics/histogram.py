"""Sufficient statistics of calibration: one pass over a volume, fixed size, exact, and additive."""

from __future__ import annotations

import json
import os
import zipfile
from typing import Any, NamedTuple

import numpy as np
import torch

from monai_calib.files import FileError, atomic_path
from monai_calib.labels import check_label
from monai_calib.metrics.bins import coarse_edges, fine_edges, first_of_coarse
from monai_calib.metrics.inputs import Activation, Flat, flatten_inputs
from monai_calib.metrics.onepass import add_flat_compiled
from monai_calib.metrics.sums import FIXED_POINT, PROBLEMS, Sums, add_flat
from monai_calib.metrics.suspicion import looks_mistaken
from monai_calib.words import counted

__all__ = ["Bins", "CalibrationHistogram"]

_SETTINGS = ("num_classes", "num_bins", "activation", "ignore_index")
_NPZ_FORMAT = "monai_calib/histogram/3"
_CAUSES = {
    "non-finite": "whose prediction holds NaN or infinity: the network diverged, or half precision overflowed",
    "no probability": "whose values lie outside [0, 1] or do not sum to 1 over the classes: "
    "if these are logits, pass from_logits=True",
    "bad label": "whose label is no class number (0 ... {last}, or one-hot): remap the label, "
    "or name the value to leave out with ignore_index",
}


class Bins(NamedTuple):
    """One histogram row: ``edges (n + 1,)``; ``count``, ``hits`` (int64), summed ``confidence`` (float64), ``(n,)``.

    Or those of all classes, ``(K, n)`` each. Once a soft label has been seen, ``hits`` are float64.
    """

    edges: torch.Tensor
    count: torch.Tensor  # type: ignore[assignment]
    hits: torch.Tensor
    confidence: torch.Tensor

    def gap(self) -> torch.Tensor:
        """Mean confidence minus accuracy of each bin, float64; NaN where it is empty."""
        return (self.confidence - self.hits) / self.count

    def share_of_gap(self) -> torch.Tensor:
        """The gap of each bin times its share of the voxels, float64: 0 where it is empty, NaN if all are."""
        return (self.confidence - self.hits) / self.count.sum(-1, keepdim=True)


class CalibrationHistogram:
    """Counts and sums that every calibration metric of a volume, or of volumes added, is computed from.

    For the top label (confidence = largest probability, hit = right class) and for each class (its probability, hit =
    the voxel bears it): voxels, hits and summed probabilities in fine bins; and the sums of the negative
    log-likelihood and the Brier score. int64 counts and float64 sums, of a size that does not depend on the number
    of voxels, on the device of the input. Volumes are read in slabs, so the memory beside them is bounded. A binary
    or multi-label prediction (``activation="sigmoid"``) has classes, but no top label.

    Args:
        num_classes: channels of the prediction, background included; sigmoid: at least 1, softmax: at least 2.
        num_bins: equal bins of which coarser ones are made by adding: 960 gives any divisor, such as 10, 15, 20, 30.
            The first and last are divided further; see :func:`monai_calib.metrics.bins.fine_edges`.
        activation: ``"softmax"`` for classes that exclude each other, ``"sigmoid"`` for multi-label.
        ignore_index: voxels bearing this label are left out.
        strict: default of the argument of :meth:`update`, no part of what the histogram is.

    Shape: see :meth:`update`.
    Raises: ``ValueError`` for ``num_classes`` or ``num_bins`` out of range.

    Example:
        >>> from monai_calib.metrics import ece
        >>> hist = CalibrationHistogram(num_classes=2)
        >>> logits = torch.zeros(1, 2, 4, 4)  # says 0.5 of both classes everywhere,
        >>> label = torch.zeros(1, 1, 4, 4)   # and is right everywhere
        >>> hist.update(logits, label)
        >>> ece(hist)
        0.5
    """

    def __init__(
        self,
        num_classes: int,
        num_bins: int = 960,
        activation: Activation = "softmax",
        ignore_index: int | None = None,
        strict: bool = True,
    ) -> None:
        if activation not in ("softmax", "sigmoid"):
            raise ValueError(f"activation: expected 'softmax' or 'sigmoid', got {activation!r}")
        if num_classes < (2 if activation == "softmax" else 1):
            raise ValueError(
                f"num_classes: expected at least 2 with softmax (1 with activation='sigmoid'), got {num_classes}"
            )
        self.num_classes = num_classes
        self.num_bins = num_bins
        self.activation: Activation = activation
        self.ignore_index = ignore_index
        self.strict = strict
        self.updates = 0
        self._rows = num_classes + (activation == "softmax")
        self.sums = Sums.zeros(self._rows, len(fine_edges(num_bins)) - 1)

    def update(
        self, prediction: Any, label: Any, mask: Any = None, from_logits: bool = True, strict: bool | None = None
    ) -> None:
        """Add a batch.

        Args:
            prediction: logits or probabilities ``(B, K, *spatial)``, any floating dtype; tensor, MetaTensor, NumPy
                array or memory map.
            label: ``(B, 1, *spatial)`` or ``(B, *spatial)`` class numbers of any dtype, or ``(B, K, *spatial)``,
                one-hot or soft (shares of the classes, which sum to 1); sigmoid: ``(B, K, *spatial)`` of 0 ... 1. A
                soft label counts as its expectation: all sums are those of labels drawn from it, so that the histogram
                of several raters' mean label is the mean of the raters' histograms. Voxels are ignored whose class
                number, or only class, or every channel is ``ignore_index``.
            mask: ``(B, 1, *spatial)`` or ``(B, *spatial)``, nonzero where voxels count. All by default.
            from_logits: whether ``prediction`` holds logits, or else probabilities.
            strict: refuse input that is formally right and almost surely a mistake: predictions that are 0 or 1
                everywhere (argmaxed) given as probabilities, and probabilities given as logits. True by default.

        An empty batch adds nothing.

        Raises:
            TypeError, ValueError: for dtypes or shapes that do not fit; and, on the CPU, for voxels in the mask with
                NaN, infinity, values that are no probabilities, or labels that are no classes, and for input
                refused by ``strict``: nothing has been added then. On other devices, which are not waited for,
                such voxels are left out and counted, and every metric asked of this histogram raises.
        """
        flat = flatten_inputs(prediction, label, mask, self.num_classes, self.activation)
        if not flat.prediction.numel():
            return
        device = flat.prediction.device
        batch = Sums.zeros(self._rows, self.sums.count.shape[1], device)
        if self.strict if strict is None else strict:
            batch.problems[PROBLEMS.index("suspicious")] += looks_mistaken(
                flat.prediction, self.activation, from_logits
            )
        soft = flat.label.ndim == 3 and flat.label.is_floating_point()
        if device.type == "cpu":
            soft = soft and bool(((flat.label != 0) & (flat.label != 1)).any())
        if device.type == "cpu" and self.activation == "softmax" and not soft:
            add_flat_compiled(batch, flat, self.num_bins, from_logits, self.ignore_index)
        else:
            add_flat(batch, flat, self.num_bins, self.activation, from_logits, self.ignore_index)
        if device.type == "cpu":
            self._explain_label(flat, batch.problems)
            self._refuse(batch.problems, from_logits)
        if self.updates:
            batch.add_(self.sums)
        self.sums = batch
        self.updates += 1

    def merge(self, other: CalibrationHistogram) -> CalibrationHistogram:
        """Add what another histogram has seen; returns itself. Raises ``ValueError`` if the two are not alike."""
        self._check_alike(other.settings())
        self.sums.add_(other.sums)
        self.updates += other.updates
        return self

    def times(self, factor: int) -> CalibrationHistogram:
        """A histogram in which every voxel counts so many times.

        Example:
            >>> hist = CalibrationHistogram(2)
            >>> hist.update(torch.zeros(1, 2, 4), torch.zeros(1, 4))
            >>> hist.times(3).voxels
            12
        """
        scaled = self.empty_like()
        scaled.sums = Sums(**{name: value * factor for name, value in self.sums.tensors().items()})
        scaled.updates = self.updates
        return scaled

    def all_reduce(self) -> CalibrationHistogram:
        """Replace the sums by those over all ranks, and return itself; without a process group, do nothing.

        Every rank must call it, once; a rank may have seen no data. Counts are exact. A second call would add the
        ranks' sums once more, so reduce a copy (``CalibrationHistogram.from_state(hist.state_dict())``) if
        updates are to follow.
        """
        dist = torch.distributed
        if not (dist.is_available() and dist.is_initialized()):
            return self
        if dist.get_backend() == "nccl":
            self.sums = self.sums.to(torch.device("cuda", torch.cuda.current_device()))
        else:
            self.sums = self.sums.to("cpu")
        updates = torch.tensor(self.updates, device=self.sums.count.device)
        for value in (*self.sums.tensors().values(), updates):
            dist.all_reduce(value)
        self.updates = int(updates)
        return self

    def reset(self) -> None:
        """Forget everything."""
        self.sums = Sums.zeros(self._rows, self.sums.count.shape[1], self.sums.count.device)
        self.updates = 0

    def check(self) -> None:
        """Raise ``ValueError`` if any voxel seen so far was wrong, saying how many and what to do."""
        self._refuse(self.sums.problems)

    @property
    def voxels(self) -> int:
        """Number of voxels counted."""
        return int(self.sums.count[0].sum())

    def class_voxels(self) -> torch.Tensor:
        """Number of voxels that bear each class, ``(K,)``, on the CPU; int64, of soft labels float64."""
        return self._hits()[: self.num_classes].sum(1)

    def bins(self, num_bins: int | None = None, class_index: int | None = None) -> Bins:
        """One row of the histogram, on the CPU.

        Args:
            num_bins: number of equal bins, a divisor of the histogram's; ``None`` for the fine bins as they are.
            class_index: a class, or ``None`` for the top label.

        Raises: ``ValueError`` for a number of bins that is no divisor, for the top label of a multi-label histogram,
            for a class there is not, and if :meth:`check` does.
        """
        return self._bins(num_bins, self._row(class_index))

    def class_bins(self, num_bins: int | None = None) -> Bins:
        """The rows of all classes at once, ``(K, n)`` each; see :meth:`bins`."""
        return self._bins(num_bins, slice(self.num_classes))

    def describe(self) -> str:
        """One sentence on what was seen, and why metrics are NaN if they are.

        Example:
            >>> CalibrationHistogram(2).describe()
            'no voxel in 0 updates: the region was empty, all metrics are NaN'
        """
        problems = dict(zip(PROBLEMS, self.sums.problems.tolist(), strict=True))
        found = "".join(f"; {n} {name}" for name, n in problems.items() if n)
        updates = counted(self.updates, "update")
        if not self.voxels:
            return f"no voxel in {updates}: the region was empty, all metrics are NaN{found}"
        absent = [k for k, n in enumerate(self.class_voxels().tolist()) if n == 0]
        missing = f"; classes in no label: {absent}" if absent else ""
        return f"{counted(self.voxels, 'voxel')} in {updates}{missing}{found}"

    def state_dict(self) -> dict[str, Any]:
        """Copies of all tensors, and the settings; ``torch.save`` it, and load with ``weights_only=True``."""
        return {**self.settings(), "updates": self.updates} | {k: v.clone() for k, v in self.sums.tensors().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave. Raises ``ValueError`` if it is of a histogram with other settings."""
        self._check_alike({name: state[name] for name in self.settings()})
        device = self.sums.count.device
        known = self.empty_like().sums.tensors() | {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}
        self.sums = Sums(**{name: known[name].clone().to(device) for name in self.sums.tensors()})
        self.updates = int(state["updates"])

    def empty_like(self) -> CalibrationHistogram:
        """A histogram with the same settings that has seen nothing."""
        return CalibrationHistogram(**self.settings(), strict=self.strict)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> CalibrationHistogram:
        """A new histogram from what :meth:`state_dict` gave."""
        hist = cls(**{name: state[name] for name in _SETTINGS})
        hist.load_state_dict(state)
        return hist

    def to_npz(self, path: str | os.PathLike[str]) -> None:
        """Write all sums without loss, an array each; :meth:`from_npz` reads them, and so does ``numpy.load``."""
        arrays: dict[str, Any] = {name: value.cpu().numpy() for name, value in self.sums.tensors().items()}
        settings = json.dumps({"format": _NPZ_FORMAT, **self.settings(), "updates": self.updates})
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, settings=np.array(settings), edges=fine_edges(self.num_bins).numpy(), **arrays)

    @classmethod
    def from_npz(cls, path: str | os.PathLike[str]) -> CalibrationHistogram:
        """The histogram that :meth:`to_npz` wrote.

        Raises: :class:`~monai_calib.files.FileError` naming the file, whatever is wrong with it.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     CalibrationHistogram(3).to_npz(f"{folder}/a.npz")
            ...     CalibrationHistogram.from_npz(f"{folder}/a.npz").num_classes
            3
        """
        try:
            with np.load(path, allow_pickle=False) as saved:
                settings = json.loads(str(saved["settings"]))
                if settings.pop("format", None) != _NPZ_FORMAT:
                    raise ValueError(f"expected format {_NPZ_FORMAT!r}")
                sizes = {info.filename: info.file_size for info in zipfile.ZipFile(path).infolist()}
                updates = int(settings.pop("updates"))
                if not 0 < settings["num_classes"] * len(fine_edges(settings["num_bins"])) * 8 <= sizes["count.npy"]:
                    raise ValueError(f"{settings['num_classes']} classes do not fit the counts")
                hist = cls(**settings)
                arrays = {name: torch.from_numpy(saved[name]) for name in hist.sums.tensors()}
            for name, value in hist.sums.tensors().items():
                if arrays[name].shape != value.shape or arrays[name].dtype != value.dtype:
                    raise ValueError(f"{name}: expected {value.dtype} {tuple(value.shape)}")
        except Exception as error:
            raise FileError(f"{path}: expected a histogram of CalibrationHistogram.to_npz, got: {error}") from error
        hist.sums, hist.updates = Sums(**arrays), updates
        return hist

    def _bins(self, num_bins: int | None, rows: int | slice) -> Bins:
        self.check()
        count, hits, confidence = (v[rows].cpu() for v in (self.sums.count, self._hits(), self.sums.confidence))
        if num_bins is None:
            return Bins(fine_edges(self.num_bins).double(), count, hits, confidence)
        first = first_of_coarse(self.num_bins, num_bins).numpy()
        coarse = [torch.from_numpy(np.add.reduceat(v.numpy(), first, axis=-1)) for v in (count, hits, confidence)]
        return Bins(coarse_edges(self.num_bins, num_bins), *coarse)

    def _hits(self) -> torch.Tensor:
        """On the CPU: int64, or float64 once a soft label has been seen."""
        hits, soft = self.sums.hits.cpu(), self.sums.soft_hits.cpu()
        return hits + soft.double() / FIXED_POINT if bool(soft.any()) else hits

    def settings(self) -> dict[str, Any]:
        """The arguments that make another such histogram."""
        return {name: getattr(self, name) for name in _SETTINGS}

    def _check_alike(self, other: dict[str, Any]) -> None:
        mine = self.settings()
        if mine != other:
            raise ValueError(f"expected a histogram with {mine}, got one with {other}")

    def _row(self, class_index: int | None) -> int:
        if class_index is None:
            if self.activation == "sigmoid":
                raise ValueError(
                    "a multi-label (sigmoid) histogram has no top label: give class_index, or use classwise_ece"
                )
            return self.num_classes
        if not 0 <= class_index < self.num_classes:
            raise ValueError(f"class_index: expected 0 ... {self.num_classes - 1}, got {class_index}")
        return class_index

    def _explain_label(self, flat: Flat, problems: torch.Tensor) -> None:
        """If class numbers were wrong, raise with the values."""
        if int(problems[PROBLEMS.index("bad label")]) and flat.label.ndim == 2:
            label = flat.label if flat.mask is None else flat.label.masked_fill(flat.mask == 0, 0)
            check_label(label, self.num_classes, self.ignore_index)

    def _refuse(self, problems: torch.Tensor, from_logits: bool | None = None) -> None:
        numbers = problems.tolist()
        if not any(numbers):
            return
        found = dict(zip(PROBLEMS, numbers, strict=True))
        last = self.num_classes - 1
        reasons = [
            f"{counted(found[name], 'voxel')} {cause.format(last=last)}"
            for name, cause in _CAUSES.items()
            if found[name]
        ]
        if found["suspicious"]:
            argmaxed = "every value given as a probability is exactly 0 or 1: an argmaxed (one-hot) prediction?"
            softmaxed = "every voxel given as logits lies in [0, 1] and sums to 1: probabilities (from_logits=False)?"
            guess = {True: softmaxed, False: argmaxed, None: f"{argmaxed} Or {softmaxed}"}[from_logits]
            reasons.append(f"{guess} If it is meant so, strict=False")
        if reasons:
            raise ValueError("expected finite logits or probabilities and labels that fit, got " + "; ".join(reasons))
