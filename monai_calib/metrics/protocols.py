"""Protocols: which figures are taken, in which regions, over how many bins, and how cases are put together.

Every figure is reported under a name that says so: ``<metric>_<region>_<bins>bins_<reduction>``, as in
``ece_boundary2mm_15bins_macro``; metrics without bins leave that part out (``nll_union_micro``). ``macro`` is the mean
over cases, each case counting once; ``micro`` takes the figure from the histogram of all cases together, each voxel
counting once. Both are legitimate, and differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from monai_calib.metrics.bins import THRESHOLD, coarse_of_fine
from monai_calib.metrics.classwise import classwise_ece_per_class
from monai_calib.metrics.errors import (
    ace,
    adaptive_ece,
    debiased_ece,
    ece,
    ks_error,
    mce,
    over_confidence,
    rmsce,
    under_confidence,
)
from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.regions import Region
from monai_calib.metrics.scores import brier, nll, sharpness

__all__ = ["METRICS", "PROTOCOLS", "REDUCTIONS", "Figure", "MetricRow", "Protocol", "resolve_protocols"]

REDUCTIONS = ("macro", "micro")
FINE_BINS = 960


class MetricRow(NamedTuple):
    """A metric as a row of values: one of the top label or of all classes, or one for each class (NaN: left out)."""

    values: Callable[[CalibrationHistogram, int], list[float]]
    binned: bool = True
    needs_top_label: bool = True


def _single(metric: Callable[..., float], binned: bool = True, needs_top_label: bool = True) -> MetricRow:
    def values(hist: CalibrationHistogram, num_bins: int) -> list[float]:
        return [metric(hist, num_bins) if binned else metric(hist)]

    return MetricRow(values, binned, needs_top_label)


def _classwise(threshold: float = 0.0, up_to_highest: bool = False) -> MetricRow:
    def values(hist: CalibrationHistogram, num_bins: int) -> list[float]:
        present = (hist.class_voxels() > 0).tolist()
        if up_to_highest and any(present):
            highest = max(k for k, is_present in enumerate(present) if is_present)
            present = [k <= highest for k in range(hist.num_classes)]
        errors = classwise_ece_per_class(hist, num_bins, threshold).tolist()
        return [error if is_present else math.nan for error, is_present in zip(errors, present, strict=True)]

    return MetricRow(values, needs_top_label=False)


METRICS: dict[str, MetricRow] = {
    "ece": _single(ece),
    "ace": _single(ace),
    "mce": _single(mce),
    "rmsce": _single(rmsce),
    "adaptive_ece": _single(adaptive_ece),
    "debiased_ece": _single(debiased_ece),
    "over_confidence": _single(over_confidence),
    "under_confidence": _single(under_confidence),
    "ks_error": _single(ks_error, binned=False),
    "sharpness": _single(sharpness, binned=False, needs_top_label=False),
    "nll": _single(nll, binned=False, needs_top_label=False),
    "brier": _single(brier, binned=False, needs_top_label=False),
    "classwise_ece": _classwise(),
    "classwise_ece_paper": _classwise(up_to_highest=True),
    "classwise_ece_above1e-3": _classwise(threshold=THRESHOLD),
}
"""What a protocol can ask for: the functions of :mod:`monai_calib.metrics` by name, and three forms of the class-wise
error. ``classwise_ece`` leaves out classes that no label of the region bears; ``classwise_ece_paper`` takes classes
0 ... highest label present, as the papers do; ``classwise_ece_above1e-3`` looks at probabilities above 1e-3 only."""


class Figure(NamedTuple):
    """One metric in one region with one binning."""

    metric: str
    region: Region
    num_bins: int

    @property
    def name(self) -> str:
        """The name of its value for one case: ``ece_foreground_15bins``."""
        bins = f"_{self.num_bins}bins" if METRICS[self.metric].binned else ""
        return f"{self.metric}_{self.region.name}{bins}"

    def values(self, hist: CalibrationHistogram) -> list[float]:
        """Its row for one histogram: one value, or one a class; NaN where there is nothing to measure."""
        return METRICS[self.metric].values(hist, self.num_bins)


@dataclass(frozen=True)
class Protocol:
    """What is measured and how it is named.

    Args:
        name: the protocol's name.
        regions: regions as strings (``"boundary:2mm"``) or :class:`~monai_calib.metrics.regions.Region`.
        metrics: names out of :data:`METRICS`.
        num_bins: bins of the binned metrics, a divisor of 960: 10, 15, 20, 30 ...
        reductions: ``"macro"``, ``"micro"`` or both.
        description: a sentence for the reader of a report.

    Raises: ``ValueError`` on an unknown metric or reduction, a number of bins that is no divisor, a wrong region.

    Example:
        >>> lesions = Protocol("lesions", ["union", "boundary:3mm"], ["ece"], num_bins=20)
        >>> [figure.name for figure in lesions.figures]
        ['ece_union_20bins', 'ece_boundary3mm_20bins']
    """

    name: str
    regions: Sequence[str | Region]
    metrics: Sequence[str]
    num_bins: int = 15
    reductions: Sequence[str] = ("macro",)
    description: str = ""

    def __post_init__(self) -> None:
        for field in ("regions", "metrics", "reductions"):
            if isinstance(getattr(self, field), str) or not getattr(self, field):
                raise ValueError(f"protocol {self.name!r}: {field} must be a list with at least one entry")
        for field, known in (("metrics", METRICS), ("reductions", REDUCTIONS)):
            unknown = [entry for entry in getattr(self, field) if entry not in known]
            if unknown:
                raise ValueError(f"protocol {self.name!r}: unknown {field} {unknown}; expected {', '.join(known)}")
        coarse_of_fine(FINE_BINS, self.num_bins)
        object.__setattr__(self, "regions", tuple(Region.parse(region) for region in self.regions))

    @classmethod
    def from_config(cls, config: str | Mapping[str, Any] | Protocol) -> Protocol:
        """A protocol by its name in :data:`PROTOCOLS`, or from the arguments in a plain mapping.

        Example:
            >>> Protocol.from_config({"name": "mine", "regions": ["all"], "metrics": ["ece"]}).reductions
            ('macro',)
        """
        if isinstance(config, Protocol):
            return config
        if isinstance(config, str):
            if config not in PROTOCOLS:
                raise ValueError(
                    f"unknown protocol {config!r}; expected {', '.join(PROTOCOLS)}, or a mapping of your own"
                )
            return PROTOCOLS[config]
        return cls(**config)

    @property
    def figures(self) -> list[Figure]:
        """Its metrics in its regions."""
        return [
            Figure(metric, Region.parse(region), self.num_bins) for region in self.regions for metric in self.metrics
        ]

    def reported_names(self) -> list[str]:
        """The names its figures are reported under, one a reduction."""
        return [f"{figure.name}_{reduction}" for figure in self.figures for reduction in self.reductions]

    def to_json(self) -> dict[str, Any]:
        """A plain mapping for reports, with ``region`` and ``reduction`` beside the lists where there is just one."""
        regions, reductions = [Region.parse(region).name for region in self.regions], list(self.reductions)
        return {
            "description": self.description,
            "regions": regions,
            **({"region": regions[0]} if len(regions) == 1 else {}),
            "num_bins": self.num_bins,
            "reductions": reductions,
            **({"reduction": reductions[0]} if len(reductions) == 1 else {}),
            "metrics": list(self.metrics),
        }


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "paper",
            regions=["foreground"],
            metrics=["ece", "classwise_ece_paper", "adaptive_ece"],
            description="The papers' protocol: voxels whose true label is not 0, 15 bins (lower, upper], class-wise "
            "error over classes 0 to the highest label in the volume without threshold, mean over volumes. "
            "Conditioning on the truth rewards over-segmentation: read it beside the recommended figures.",
        ),
        Protocol(
            "recommended",
            regions=["all", "predicted", "union", "dilated:2mm", "boundary:2mm", "bbox"],
            metrics=["ece", "classwise_ece", "nll", "brier"],
            reductions=REDUCTIONS,
            description="Regions that do not depend on the truth alone: the whole volume, the predicted foreground, "
            "the union of truth and prediction (above 0 even for a perfect posterior), that union dilated, a band of "
            "2 mm around either boundary, the bounding box. Proper scores, "
            "ECE over 15 bins, class-wise error with absent classes left out; mean over cases (macro) and over "
            "voxels (micro).",
        ),
    )
}
"""Protocols by name."""


def resolve_protocols(protocols: Sequence[str | Mapping[str, Any] | Protocol]) -> list[Protocol]:
    """Protocols from names, mappings or instances. Raises ``ValueError`` if two bear the same name."""
    if isinstance(protocols, (str, Mapping, Protocol)):
        protocols = [protocols]
    resolved = [Protocol.from_config(protocol) for protocol in protocols]
    names = [protocol.name for protocol in resolved]
    if len(set(names)) != len(names) or not names:
        raise ValueError(f"expected at least one protocol, each with a name of its own, got {names}")
    return resolved
