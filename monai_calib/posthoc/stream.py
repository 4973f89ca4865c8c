"""Logits of validation cases, one case at a time, as often as a fit asks for them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from monai_calib.datasets.case import case_name, spacing_of
from monai_calib.labels import as_plain_tensor, check_label, mean_label, top_class
from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.regions import Region, region_mask
from monai_calib.posthoc.distance import distance_to_boundary

__all__ = ["EachRater", "LogitCase", "LogitStream"]

SLAB = 2**18


@dataclass
class LogitCase:
    """One case as a fit sees it.

    Args:
        name: how errors call it.
        logits: ``(K, *spatial)``.
        label: true class numbers ``(*spatial)`` or ``(1, *spatial)``, any dtype; see
            :func:`monai_calib.labels.check_label`.
        image: ``(C, *spatial)``; only the local temperature reads it.
        spacing: voxel size in mm; only regions and methods with a size in mm read it.
        ignore_index: label of voxels that count nowhere.
        data: masks of the user's own for regions ``mask:<key>``.
        subject: whom the case was taken from; the case itself if not given.
        raters: class numbers of several raters ``(R, *spatial)``; ``label`` is then the class that most of them gave,
            from which regions are drawn.

    Raises: ``ValueError`` naming the case for logits that are NaN or infinite, labels that are no class numbers, and
        grids that differ.

    Example:
        >>> case = LogitCase("a", torch.zeros(2, 2, 2), torch.tensor([[0, 1], [0, 0]]))
        >>> [tuple(logits.shape) for logits, _, _ in case.slabs("foreground")]
        [(2, 1)]
    """

    name: str
    logits: Tensor
    label: Tensor
    image: Tensor | None = None
    spacing: Sequence[float] | None = None
    ignore_index: int | None = None
    data: Mapping[str, Tensor] = field(default_factory=dict)
    subject: str = ""
    raters: Tensor | None = None

    def __post_init__(self) -> None:
        self.logits = self.logits.as_subclass(Tensor)
        label = as_plain_tensor(self.label)
        spatial = self.logits.shape[1:]
        if label.shape not in (spatial, (1, *spatial)):
            raise ValueError(
                f"case {self.name}: expected a label with the grid {tuple(spatial)} of the logits, "
                f"got {tuple(label.shape)}"
            )
        if not bool(torch.stack(self.logits.aminmax()).isfinite().all()):  # without a copy of all logits
            raise ValueError(
                f"case {self.name}: the logits hold NaN or infinity: the network diverged, half precision overflowed, "
                "or the image is broken. Evaluate the network before calibrating it"
            )
        what = f"case {self.name}: label"
        known = check_label(label.reshape(spatial), len(self.logits), self.ignore_index, what, look=True)
        device = self.logits.device
        self.label = known.index.long().to(device)
        self.ignored = None if known.valid is None else ~known.valid.to(device)
        self.subject = self.subject or self.name
        if self.raters is not None:
            self.raters = as_plain_tensor(self.raters).to(device)
            if self.raters.shape[1:] != spatial:
                raise ValueError(
                    f"case {self.name}: expected raters' labels with the grid {tuple(spatial)} of the logits, "
                    f"got {tuple(self.raters.shape)}"
                )
        self._masks: dict[str, Tensor] = {}
        self._whole: LogitCase | None = None  # of one rater's label: the case of all, which draws its regions
        self.weight: Any = None  # of a sample's voxels, a tensor

    @cached_property
    def predicted(self) -> Tensor:
        """Predicted class numbers ``(*spatial)``, the first of equals."""
        return top_class(self.logits).long()

    def mask(self, region: str | Region) -> Tensor:
        """The voxels ``(*spatial)`` of a region, without ignored ones."""
        region = Region.parse(region)
        if self._whole is not None:
            mask = self._whole.mask(region)
            return mask if self.ignored is None else mask & ~self.ignored
        if region.name not in self._masks:
            predicted = self.predicted if region.needs_prediction else None
            disputed = self._disputed() if region.kind in ("consensus", "dissensus") else None
            try:
                mask = region_mask(region, self.label, predicted, self.spacing, self.data, self.ignored, disputed)
            except ValueError as error:
                raise ValueError(f"case {self.name}: {error}") from error
            self._masks[region.name] = mask
        return self._masks[region.name]

    def by_rater(self) -> Iterator[LogitCase]:
        """The case once per rater, with that rater's label, in the regions of the whole case; itself without raters.

        A sum over these cases is R times the sum against the raters' mean label, the mean human response, whatever is
        fitted: cross-entropy is linear in the label.
        """
        if self.raters is None:
            yield self
            return
        _ = self.predicted  # once for all of them
        for number, rater in enumerate(self.raters, 1):
            one = copy.copy(self)
            one.name, one.raters, one._whole = f"{self.name}, rater {number}", None, self
            known = check_label(rater, len(self.logits), self.ignore_index, f"case {one.name}: label", look=True)
            one.label = known.index.long()
            one.ignored = None if known.valid is None else ~known.valid
            yield one

    def _disputed(self) -> Tensor | None:
        """Voxels on whose label the raters differ; None for one rater."""
        if self.raters is None:
            return None
        return mean_label(self.raters, len(self.logits), self.ignore_index).amax(0) < 1

    def slices(self, axis: int, region: str | Region) -> Iterator[LogitCase]:
        """The slices across a spatial axis that hold voxels of a region, each as a case of one dimension less.

        Their masks of the region are cut from the volume's.
        """
        mask = self.mask(region)
        others = tuple(a for a in range(mask.ndim) if a != axis)
        for i in mask.any(others).nonzero().flatten().tolist():
            part = LogitCase(
                name=f"{self.name}, slice {i}",
                logits=self.logits.select(axis + 1, i),
                label=self.label.select(axis, i),
                image=None if self.image is None else self.image.select(axis + 1, i),
                spacing=None if self.spacing is None else [self.spacing[a] for a in others],
            )
            part._masks[Region.parse(region).name] = mask.select(axis, i)
            yield part

    @property
    def axes(self) -> int:
        """Number of spatial axes of the volume."""
        return self.label.ndim

    def count(self, region: str | Region) -> int:
        """Number of voxels in a region."""
        return int(self.mask(region).sum())

    def distance(self, num_classes: int, spacing: Sequence[float], reach: float) -> Tensor:
        """Signed distance in mm to the predicted boundary ``(*spatial)``; see
        :func:`~.distance.distance_to_boundary`."""
        return distance_to_boundary(self.predicted[None], num_classes, list(spacing), reach)[0]

    def histogram(self, region: str | Region = "all", logits: Tensor | None = None) -> CalibrationHistogram:
        """Calibration histogram of a region, of these logits or of corrected ones ``(K, *spatial)``."""
        histogram = CalibrationHistogram(len(self.logits), strict=False)
        seen = self.logits if logits is None else logits
        histogram.update(seen[None], self.label[None], mask=self.mask(region)[None], strict=False)
        return histogram

    def slabs(self, region: str | Region, *maps: Tensor) -> Iterator[tuple[Any, ...]]:
        """Voxels of a region in parts of bounded size.

        Yields logits ``(K, n)`` float64, labels ``(n,)``, weights ``(n,)`` float64 or None where every voxel counts
        once, then each of ``maps`` ``(M, *spatial)`` as ``(M, n)`` float64.
        """
        where = self.mask(region).flatten().nonzero().squeeze(1)
        for part in where.split(SLAB) if len(where) else ():
            rows = (value.flatten(1)[:, part].double() for value in (self.logits, *maps))
            logits, *others = rows
            weight = None if self.weight is None else self.weight.flatten()[part].double()
            yield logits, self.label.flatten()[part], weight, *others


class EachRater:
    """Cases once per rater, for a fit: the correction is then that of the mean human response.

    Example:
        >>> raters = torch.tensor([[0, 1], [1, 1]])
        >>> case = LogitCase("a", torch.zeros(2, 2), raters[0], raters=raters)
        >>> [(one.name, one.label.tolist()) for one in EachRater([case])]
        [('a, rater 1', [0, 1]), ('a, rater 2', [1, 1])]
    """

    def __init__(self, cases: Iterable[LogitCase]) -> None:
        self.cases = cases

    def __iter__(self) -> Iterator[LogitCase]:
        return (one for case in self.cases for one in case.by_rater())


class LogitStream:
    """Runs a network over a loader, case by case; each iteration is one pass over the data, and keeps nothing.

    The loader must give the same cases every time: no random cropping or augmentation.

    Args:
        network: put into evaluation mode.
        loader: yields mappings with an image ``(B, C, *spatial)`` and a label ``(B, 1, *spatial)``.
        inferer: as in MONAI, ``inferer(image, network) -> logits (B, K, *spatial)``; the network itself by default.
            It must average logits, not probabilities, where windows overlap.
        device: where the network runs; that of its parameters by default.
        amp: whether to run it under autocast, as evaluation will.
        image_key, label_key: names in the batch; of several raters' labels, ``raters``, see
            :class:`~monai_calib.transforms.KeepRatersd`.
        ignore_index: label of voxels that count nowhere.
        spacing: voxel size in mm of cases without a header.

    Attributes:
        largest: number of voxels along each axis, the most of the images that the network has seen.

    Example:
        >>> loader = [{"image": torch.zeros(1, 1, 4, 4), "label": torch.zeros(1, 1, 4, 4)}]
        >>> stream = LogitStream(nn.Conv2d(1, 3, 1), loader)
        >>> [(case.name, tuple(case.logits.shape)) for case in stream]
        [('case_0001', (3, 4, 4))]
    """

    def __init__(
        self,
        network: nn.Module,
        loader: Iterable[Mapping[str, Any]],
        inferer: Callable[..., Any] | None = None,
        device: torch.device | str | None = None,
        amp: bool = False,
        image_key: str = "image",
        label_key: str = "label",
        ignore_index: int | None = None,
        spacing: Sequence[float] | None = None,
    ) -> None:
        self.network = network
        self.loader = loader
        self.inferer = inferer
        parameter = next(network.parameters(), None)
        self.device = torch.device(device or (parameter.device if parameter is not None else "cpu"))
        self.amp = amp
        self.image_key = image_key
        self.label_key = label_key
        self.ignore_index = ignore_index
        self.spacing = spacing
        self.problems_per_case = 1
        self.largest: tuple[int, ...] = ()

    def __iter__(self) -> Iterator[LogitCase]:
        return (case for _, case in self.numbered() if case is not None)

    def numbered(self, without: Collection[int] = ()) -> Iterator[tuple[int, LogitCase | None]]:
        """The cases with their numbers from 0; None for those of ``without``, for which the network does not run."""
        self.network.eval()
        first = 0
        for batch in self.loader:
            numbers = range(first, first + len(batch[self.image_key]) * self.problems_per_case)
            first = numbers.stop
            if all(number in without for number in numbers):
                yield from ((number, None) for number in numbers)
            else:
                yield from self._of_batch(batch, numbers, without)
            del batch  # or it would stay while the next is made

    def _of_batch(
        self, batch: Mapping[str, Any], numbers: range, without: Collection[int]
    ) -> Iterator[tuple[int, LogitCase | None]]:
        image, labels = batch[self.image_key], batch[self.label_key]
        grid = tuple(image.shape[2:])
        self.largest = tuple(map(max, grid, self.largest or grid))
        logits = self._logits(image)
        for i in range(len(image)):
            mine = numbers[i * self.problems_per_case :]
            plain = _name(batch, image, i) or f"case_{mine[0] // self.problems_per_case + 1:04d}"
            for number, problem in zip(mine, self.problems(plain, logits[i], labels[i]), strict=False):
                yield number, None if number in without else self._case(batch, i, plain, *problem)

    def problems(self, name: str, logits: Tensor, label: Any) -> Iterator[tuple[str, Tensor, Any]]:
        """Give name, logits and label of each problem that a case is to a fit: here one, of all classes."""
        yield name, logits, label

    def _case(self, batch: Mapping[str, Any], i: int, whole: str, name: str, logits: Tensor, label: Any) -> LogitCase:
        image = batch[self.image_key]
        return LogitCase(
            name=name,
            logits=logits,
            label=label,
            image=image[i].as_subclass(Tensor).to(logits.device),
            spacing=_spacing(batch[self.label_key], i, logits.ndim - 1) or self.spacing,
            ignore_index=self.ignore_index,
            data={
                k: v[i] for k, v in batch.items() if isinstance(v, Tensor) and len(v) == len(image) and k != "raters"
            },
            subject=_subject(batch, i) or whole,
            raters=batch["raters"][i] if "raters" in batch and self.problems_per_case == 1 else None,
        )

    @torch.no_grad()
    def _logits(self, image: Tensor) -> Tensor:
        image = image.as_subclass(Tensor).to(self.device)
        with torch.autocast(self.device.type, enabled=self.amp):
            output = self.network(image) if self.inferer is None else self.inferer(image, self.network)
        if isinstance(output, (list, tuple)) and len(output) == 1:
            output = output[0]  # BasicUNetPlusPlus wraps its one output
        if not isinstance(output, Tensor):
            raise TypeError(
                f"expected one tensor of logits from the network, got {type(output).__name__}; "
                "a network with deep supervision must return its finest output in evaluation mode"
            )
        return output.as_subclass(Tensor).float()


def _name(batch: Mapping[str, Any], image: Any, index: int) -> str:
    path = image.meta.get("filename_or_obj", "") if isinstance(image, MetaTensor) else ""
    path = path[index] if isinstance(path, (list, tuple)) else path
    given = batch.get("case")
    return case_name(given[index] if isinstance(given, (list, tuple)) and index < len(given) else given, path)


def _spacing(label: Any, index: int, ndim: int) -> tuple[float, ...] | None:
    if not isinstance(label, MetaTensor):
        return None
    affine = label.affine if label.affine.ndim == 2 else label.affine[index]
    return spacing_of(affine, ndim)


def _subject(batch: Mapping[str, Any], index: int) -> str:
    given = batch.get("subject")
    given = given[index] if isinstance(given, (list, tuple)) and index < len(given) else given
    return given if isinstance(given, str) else ""
