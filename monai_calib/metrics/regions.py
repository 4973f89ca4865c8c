"""Regions of a volume in which calibration is measured, with their sizes in millimetres.

A calibration error without its region says little: over the whole volume it is swamped by easy background, inside the
true foreground it rewards over-segmentation. A region is written as a short string, ``"foreground"`` or
``"boundary:2mm"``, and turned into a boolean mask for one case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from monai_calib.metrics.ball import ROUNDING, largest_within

__all__ = ["REGION_KINDS", "Region", "RegionMasks", "bounding_box", "region_mask"]

REGION_KINDS = (
    "all",
    "foreground",
    "predicted",
    "union",
    "dilated",
    "boundary",
    "bbox",
    "consensus",
    "dissensus",
    "mask",
)
_SIZED = ("dilated", "boundary", "bbox")


@dataclass(frozen=True)
class Region:
    """A part of the volume, in which calibration is measured.

    - ``all``: every voxel.
    - ``foreground``: voxels whose true label is not 0 (the papers' choice).
    - ``predicted``: voxels whose predicted label is not 0.
    - ``union``: voxels whose true or predicted label is not 0.
    - ``dilated:5mm``, ``dilated:2vx``: voxels at most 5 mm, or 2 voxels, from a voxel of ``union``.
    - ``boundary:2mm``: voxels with a voxel of **another** label at most 2 mm away, in the truth or in the prediction.
    - ``bbox``, ``bbox:10mm``: the smallest box around ``union``, widened by 10 mm along each axis.
    - ``consensus``, ``dissensus``: voxels on whose label all raters agree, and the others, none for one rater.
    - ``mask:lung``: a mask of the user's own, under the key ``lung`` of the batch.

    A size is written ``2mm``, ``2vx`` (voxels along every axis; no spacing is needed), or ``max(2mm,2vx)``: 2 mm, but
    at least 2 voxels along every axis, for data whose voxels are larger than a fixed band.

    Where the true label decides what belongs to a region, as in ``foreground`` and ``union``, even a perfect posterior
    does not score 0, since the voxels were chosen by how the draw came out (on the phantom, true posterior: 0.012 and
    0.056, against 0.0003 in ``all`` and 0.0025 in ``predicted``). Compare methods there, but do not read the value as
    a distance to perfection.

    Distances run from voxel centre to voxel centre; a voxel at exactly the given distance belongs to the region.

    Args:
        kind: the word before the colon.
        size_mm: the size in mm, 0 for a kind without one.
        key: the key of a user's mask, for kind ``mask``.
        size_vx: the size in voxels, 0 for none; with a size in mm, the larger of the two counts along each axis.

    Raises: ``ValueError`` on an unknown kind, or a size or key that is missing or out of place.

    Example:
        >>> Region.parse("boundary:2mm").name, Region.parse("all").name, str(Region.parse("bbox:2.5mm"))
        ('boundary2mm', 'all', 'bbox:2.5mm')
        >>> Region.parse("boundary:max(2mm,2vx)").name
        'boundary2mm2vx'
    """

    kind: str
    size_mm: float = 0.0
    key: str = ""
    size_vx: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in REGION_KINDS:
            raise ValueError(f"unknown region {self.kind!r}; expected one of {', '.join(REGION_KINDS)}")
        needs_size = self.kind in ("dilated", "boundary")
        sizes = (self.size_mm, self.size_vx)
        if not all(0 <= size < float("inf") for size in sizes) or (needs_size and not any(sizes)):
            raise ValueError(f"region {self.kind!r} needs a positive size in mm or voxels, as in '{self.kind}:2mm'")
        if any(sizes) and self.kind not in _SIZED:
            raise ValueError(f"region {self.kind!r} has no size, got {self._size}")
        if (self.kind == "mask") != bool(self.key):
            raise ValueError("a mask of your own is written 'mask:<key>', with the key it has in the batch")
        if self.key and (not re.fullmatch(r"[A-Za-z0-9.-]+", self.key) or self.key in REGION_KINDS):
            raise ValueError(
                f"the key of a mask may hold letters, digits, '.' and '-', and not be a region's name; got {self.key!r}"
            )

    @classmethod
    def parse(cls, text: str | Region) -> Region:
        """Read ``"kind"``, ``"kind:<size>"`` or ``"mask:<key>"``; a :class:`Region` comes back as it is."""
        if isinstance(text, Region):
            return text
        if not isinstance(text, str):
            raise ValueError(f"region: expected a text such as 'boundary:2mm', got {text!r:.100}")
        kind, colon, size = text.partition(":")
        if kind == "mask":
            return cls(kind, key=size)
        found = re.fullmatch(r"(?:%smm)?(?:%svx)?|max\(%smm,%svx\)" % ((r"(\d+(?:\.\d+)?)",) * 4), size)
        numbers = [float(number or 0) for number in found.groups()] if found else [0.0] * 4
        if (colon and not (size and found)) or (numbers[0] and numbers[1]):
            raise ValueError(
                f"cannot read the size of region {text!r}; expected '{kind}:<number>mm', e.g. '{kind}:2mm', "
                f"'{kind}:<number>vx' for voxels, or '{kind}:max(2mm,2vx)'"
            )
        return cls(kind, size_mm=numbers[0] or numbers[2], size_vx=numbers[1] or numbers[3])

    @property
    def _size(self) -> str:
        sizes = [f"{self.size_mm:g}mm"] * bool(self.size_mm) + [f"{self.size_vx:g}vx"] * bool(self.size_vx)
        return f"max({','.join(sizes)})" if len(sizes) == 2 else "".join(sizes)

    @property
    def name(self) -> str:
        """The name in reports and file names: ``boundary2mm``, or the key of a user's mask."""
        return self.key or self.kind + re.sub(r"max|[(),]", "", self._size)

    @property
    def words(self) -> str:
        """The region in words, for labels of metrics: "within 2 mm of a boundary"."""
        mm, vx = f"{self.size_mm:g} mm", f"{self.size_vx:g} voxel" + ("s" if self.size_vx != 1 else "")
        size = f"{mm}, at least {vx}," if self.size_mm and self.size_vx else (vx if self.size_vx else mm)
        return {
            "all": "whole volume",
            "foreground": "true foreground",
            "predicted": "predicted foreground",
            "union": "true or predicted foreground",
            "dilated": f"within {size} of true or predicted foreground",
            "boundary": f"within {size} of a boundary",
            "bbox": "box around the foreground" + (f" and {size}" if self._size else ""),
            "consensus": "where all raters agree",
            "dissensus": "where raters differ",
            "mask": f"mask {self.key}",
        }[self.kind]

    @property
    def needs_prediction(self) -> bool:
        return self.kind in ("predicted", "union", "dilated", "boundary", "bbox")

    def __str__(self) -> str:
        detail = self.key or self._size
        return f"{self.kind}:{detail}" if detail else self.kind


def region_mask(
    region: str | Region,
    label: torch.Tensor,
    prediction: torch.Tensor | None = None,
    spacing: Sequence[float] | None = None,
    masks: Mapping[str, torch.Tensor] | None = None,
    ignored: torch.Tensor | None = None,
    disputed: torch.Tensor | None = None,
) -> torch.Tensor:
    """The mask of a region in one case.

    Distances are exact, between centres of voxels: a region with a size is the union of balls of voxels. It needs plain
    tensor operations only, so it runs on the tensor's device, and only on the box around the foreground plus ``r``.

    Args:
        region: see :class:`Region`.
        label: true class indices ``(*spatial)``, 2D or 3D, at least 0, without batch or channel axis.
        prediction: predicted class indices ``(*spatial)``; only ``all``, ``foreground`` and ``mask`` do without.
        spacing: voxel size in mm, one number an axis of ``label``; only regions with a size need it.
        masks: masks of the user's own by key, ``(*spatial)`` or ``(1, *spatial)``, true where not 0.
        ignored: bool ``(*spatial)``, voxels that belong to no region and whose label and prediction draw none: beside
            them there is no boundary. Their values in ``label`` and ``prediction`` may be any.
        disputed: bool ``(*spatial)``, voxels on whose label raters differ; none by default.

    Returns: bool ``(*spatial)`` on the label's device; empty (all false) where there is no foreground.

    Raises: ``ValueError`` on a shape that differs, a missing prediction, spacing or mask.

    Example:
        >>> label = torch.tensor([[0, 0, 1, 1, 0, 0, 0]])
        >>> region_mask("boundary:2mm", label, label, spacing=(1.0, 2.0)).int()
        tensor([[0, 1, 1, 1, 1, 0, 0]], dtype=torch.int32)
    """
    return RegionMasks(label, prediction, spacing, masks, ignored, disputed).draw(region)


class RegionMasks:
    """The masks of several regions of one case: what they share is computed once.

    Args, Raises: as of :func:`region_mask`.

    Example:
        >>> label = torch.tensor([[0, 0, 1, 1, 0, 0, 0]])
        >>> masks = RegionMasks(label, label.roll(1), spacing=(1.0, 2.0))
        >>> masks.draw("union").int(), masks.draw("dilated:2mm").int()
        (tensor([[0, 0, 1, 1, 1, 0, 0]], dtype=torch.int32), tensor([[0, 1, 1, 1, 1, 1, 0]], dtype=torch.int32))
    """

    def __init__(
        self,
        label: torch.Tensor,
        prediction: torch.Tensor | None = None,
        spacing: Sequence[float] | None = None,
        masks: Mapping[str, torch.Tensor] | None = None,
        ignored: torch.Tensor | None = None,
        disputed: torch.Tensor | None = None,
    ) -> None:
        for name, given in (("prediction", prediction), ("ignored", ignored), ("disputed", disputed)):
            if given is not None and given.shape != label.shape:
                raise ValueError(f"{name}: expected the label's shape {tuple(label.shape)}, got {tuple(given.shape)}")
        self.label = label.as_subclass(torch.Tensor)
        self.prediction = None if prediction is None else prediction.as_subclass(torch.Tensor).to(label.device)
        self.spacing = spacing
        self.masks = masks
        self.disputed = torch.zeros_like(self.label, dtype=torch.bool) if disputed is None else disputed
        self.ignored = None if ignored is None else ignored.as_subclass(torch.Tensor).to(label.device)
        if self.ignored is not None:
            self.label = self.label.masked_fill(self.ignored, 0)
            if self.prediction is not None:
                self.prediction = self.prediction.masked_fill(self.ignored, 0)

    def draw(self, region: str | Region) -> torch.Tensor:
        """The mask of a region, bool ``(*spatial)``, without ignored voxels; see :func:`region_mask`."""
        mask = self._draw(Region.parse(region))
        return mask if self.ignored is None else mask & ~self.ignored

    def _draw(self, region: Region) -> torch.Tensor:
        if region.kind == "all":
            return torch.ones_like(self.label, dtype=torch.bool)
        if region.kind == "foreground":
            return self.label != 0
        if region.kind in ("consensus", "dissensus"):
            return self.disputed if region.kind == "dissensus" else ~self.disputed
        if region.kind == "mask":
            return _users_mask(region.key, self.label, self.masks)
        if self.prediction is None:
            raise ValueError(f"region {str(region)!r} needs the prediction's class indices beside the label")
        if region.kind == "predicted":
            return self.prediction != 0
        if region.kind == "union":
            return self._union

        size, step = _in_voxels_or_mm(region, self.spacing, self.label.ndim)
        mask = torch.zeros_like(self._union)
        if self._box is None:
            return mask
        margins = [int(size / s + ROUNDING) for s in step]
        box = tuple(
            slice(max(0, side.start - margin), min(length, side.stop + margin))
            for side, margin, length in zip(self._box, margins, mask.shape, strict=True)
        )
        if region.kind == "bbox":
            mask[box] = True
        elif region.kind == "dilated":
            mask[box] = largest_within(self._union[box].view(torch.uint8)[None], size, step)[0] != 0
        else:
            ignored = None if self.ignored is None else self.ignored[box]
            mask[box] = _near_another_label(self.label[box], self.prediction[box], size, step, ignored)
        return mask

    @cached_property
    def _union(self) -> torch.Tensor:
        return (self.label != 0) | (self.prediction != 0)

    @cached_property
    def _box(self) -> tuple[slice, ...] | None:
        return bounding_box(self._union)


def bounding_box(mask: torch.Tensor, margin: Sequence[int] | int = 0) -> tuple[slice, ...] | None:
    """The smallest box that holds every true voxel, widened by ``margin`` voxels and cut at the volume's edges.

    Waits for the device once: a slice needs its numbers on the host. None for an empty mask.

    Example:
        >>> bounding_box(torch.tensor([[0, 0, 0, 0], [0, 1, 1, 0]], dtype=torch.bool))
        (slice(1, 2, None), slice(1, 3, None))
    """
    margins = [margin] * mask.ndim if isinstance(margin, int) else margin
    profiles, rest = [], mask.view(torch.uint8)  # whose maximum runs in vector instructions, unlike any() of a bool
    while rest.ndim > 1:
        profiles.append(rest.flatten(1).amax(1))
        rest = rest.amax(0)
    profiles.append(rest)
    occupied = torch.cat(profiles).cpu().split([len(p) for p in profiles])
    box = []
    for profile, extra in zip(occupied, margins, strict=True):
        where = profile.nonzero().flatten()
        if not len(where):
            return None
        box.append(slice(max(0, int(where[0]) - extra), min(len(profile), int(where[-1]) + 1 + extra)))
    return tuple(box)


def _users_mask(key: str, label: torch.Tensor, masks: Mapping[str, torch.Tensor] | None) -> torch.Tensor:
    if masks is None or key not in masks:
        raise ValueError(f"region 'mask:{key}' needs a mask under the key {key!r}; got {sorted(masks or {})}")
    mask = masks[key].as_subclass(torch.Tensor)
    if mask.shape != label.shape and mask.shape[:1] == (1,):
        mask = mask[0]
    if mask.shape != label.shape:
        raise ValueError(f"mask {key!r} has shape {tuple(mask.shape)}, but the label has {tuple(label.shape)}")
    return mask.to(label.device) != 0


def _in_voxels_or_mm(region: Region, spacing: Sequence[float] | None, ndim: int) -> tuple[float, list[float]]:
    """Radius and step along each axis, in one unit: mm, or, where the size is in voxels, radii of the ball."""
    if spacing is None:
        if region.size_mm:
            raise ValueError(
                f"region {str(region)!r} has a size in mm, so it needs the voxel spacing in mm; "
                f"for images without one, write '{region.kind}:2vx'"
            )
        return region.size_vx, [1.0] * ndim
    step = [float(s) for s in spacing]
    if len(step) != ndim or not all(0 < s < float("inf") for s in step):
        raise ValueError(f"spacing needs one positive number in mm for each of {ndim} axes, got {step}")
    if not region.size_vx:
        return region.size_mm, step
    # The ball is an ellipsoid whose radius along an axis is the larger of the two: of radius 1 in steps of 1 / radius.
    radii = [max(region.size_mm / s, region.size_vx) for s in step]
    return 1.0, [1.0 / radius for radius in radii]


def _near_another_label(
    label: torch.Tensor,
    prediction: torch.Tensor,
    radius: float,
    spacing: Sequence[float],
    ignored: torch.Tensor | None = None,
) -> torch.Tensor:
    """Voxels with a voxel of another label at most ``radius`` mm away, in the truth or in the prediction.

    A ball holds two labels if its largest is not its smallest, which is the largest of the labels counted downwards.
    Ignored voxels count as the smallest in both: they have no label that could differ.
    """
    labels = torch.stack([label.to(torch.int32), prediction.to(torch.int32)])
    if int(labels.max()) < 256:
        labels = labels.to(torch.uint8)
    upwards, downwards = labels, ~labels
    if ignored is not None:
        upwards = upwards.masked_fill(ignored, 0)
        downwards = downwards.masked_fill(ignored, torch.iinfo(labels.dtype).min)
    largest, smallest = largest_within(torch.cat([upwards, downwards]), radius, spacing).split(2)
    differ = largest != ~smallest
    return differ[0] | differ[1]
