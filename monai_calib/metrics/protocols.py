"""Protocols: regions, metrics, bins, and how cases are put together.

Every metric has a name that says so: ``<kind>_<region>_<bins>bins_<reduction>``, as in
``ece_boundary2mm_15bins_macro``; kinds without bins leave that part out (``nll_union_micro``). ``macro`` is the mean
over cases, each case counting once; ``micro`` takes the metric from the histogram of all cases together, each voxel
counting once. Both are legitimate, and differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    penalised_ece,
    rmsce,
    under_confidence,
)
from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.metric import Metric
from monai_calib.metrics.regions import Region
from monai_calib.metrics.scores import brier, nll, root_brier, sharpness
from monai_calib.metrics.selective import Bounded, augrc, aurc, excess_aurc
from monai_calib.metrics.smooth import mmce, smooth_ece

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "REDUCTIONS",
    "MetricRow",
    "Protocol",
    "by_region_for",
    "measure",
    "resolve_protocols",
]

REDUCTIONS = ("macro", "micro")
FINE_BINS = 960


class MetricRow(NamedTuple):
    """A kind of metric as a row of values: one of the top label or of all classes, or one per class (NaN: left out)."""

    values: Callable[[CalibrationHistogram, int], list[float]]
    words: str
    binned: bool = True
    needs_top_label: bool = True
    per_class: bool = False
    unit: str = ""
    direction: int = -1
    against: str = "label"  # "raters": each rater, averaged; "ceiling": the raters' mean, taken as the prediction


def _binned(metric: Callable[..., float], words: str) -> MetricRow:
    return MetricRow(lambda hist, num_bins: [metric(hist, num_bins)], words)


def _unbinned(metric: Callable[[CalibrationHistogram], float], words: str, **more: Any) -> MetricRow:
    return MetricRow(lambda hist, num_bins: [metric(hist)], words, binned=False, **more)


def _bounded(metric: Callable[[CalibrationHistogram], Bounded], words: str) -> MetricRow:
    return MetricRow(lambda hist, num_bins: [metric(hist).value], words, binned=False)


def _classwise(words: str, threshold: float = 0.0, up_to_highest: bool = False) -> MetricRow:
    def values(hist: CalibrationHistogram, num_bins: int) -> list[float]:
        present = (hist.class_voxels() > 0).tolist()
        if up_to_highest and any(present):
            highest = max(k for k, is_present in enumerate(present) if is_present)
            present = [k <= highest for k in range(hist.num_classes)]
        errors = classwise_ece_per_class(hist, num_bins, threshold).tolist()
        return [error if is_present else math.nan for error, is_present in zip(errors, present, strict=True)]

    return MetricRow(values, words, needs_top_label=False, per_class=True)


METRICS: dict[str, MetricRow] = {
    "ece": _binned(ece, "ECE"),
    "ace": _binned(ace, "ACE"),
    "mce": _binned(mce, "MCE"),
    "rmsce": _binned(rmsce, "root mean square calibration error"),
    "adaptive_ece": _binned(adaptive_ece, "adaptive ECE"),
    "debiased_ece": _binned(debiased_ece, "debiased ECE"),
    "over_confidence": _binned(over_confidence, "over-confidence"),
    "under_confidence": _binned(under_confidence, "under-confidence"),
    "ks_error": _unbinned(ks_error, "KS error"),
    "sharpness": _unbinned(sharpness, "sharpness", needs_top_label=False, direction=0),
    "nll": _unbinned(nll, "NLL", needs_top_label=False, unit="nats"),
    "brier": _unbinned(brier, "Brier score", needs_top_label=False),
    "root_brier": _unbinned(root_brier, "root of the Brier score", needs_top_label=False),
    "smooth_ece": _bounded(smooth_ece, "smooth ECE"),
    "mmce": _bounded(mmce, "MMCE"),
    "penalised_ece": MetricRow(lambda hist, num_bins: [penalised_ece(hist, num_bins).value], "penalised ECE"),
    "aurc": _bounded(aurc, "AURC"),
    "excess_aurc": _bounded(excess_aurc, "excess AURC"),
    "augrc": _bounded(augrc, "AUGRC"),
    "classwise_ece": _classwise("class-wise ECE"),
    "classwise_ece_paper": _classwise("class-wise ECE up to the highest class present", up_to_highest=True),
    "classwise_ece_above1e-3": _classwise("class-wise ECE of probabilities above 0.001", threshold=THRESHOLD),
}
METRICS |= {
    "rater_ece": METRICS["ece"]._replace(words="ECE of each rater, mean", against="raters"),
    "rater_classwise_ece": METRICS["classwise_ece"]._replace(
        words="class-wise ECE of each rater, mean", against="raters"
    ),
    "least_nll": METRICS["nll"]._replace(words="least NLL, the raters' entropy", direction=0, against="ceiling"),
    "least_brier": METRICS["brier"]._replace(
        words="least Brier score, the raters' variance", direction=0, against="ceiling"
    ),
}
"""What a protocol can ask for: the functions of :mod:`monai_calib.metrics` by name, three forms of the class-wise
error, and what needs several raters (see :mod:`.raters`): errors against each of them, averaged, and the least scores
that their disagreement leaves. ``classwise_ece`` leaves out classes that no label of the region bears;
``classwise_ece_paper`` takes classes 0 ... highest label present, as the papers do; ``classwise_ece_above1e-3`` looks
at probabilities above 1e-3 only."""


def measure(metric: Metric, hist: CalibrationHistogram) -> list[float]:
    """A protocol's metric for one histogram: one value, or one per class; NaN where there is nothing to measure."""
    return METRICS[metric.kind].values(hist, metric.bins or FINE_BINS)


@dataclass(frozen=True)
class Protocol:
    """Metrics of an evaluation and their names.

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
        >>> [metric.name for metric in lesions.case_metrics(["background", "lesion"])]
        ['ece_union_20bins', 'ece_boundary3mm_20bins']
    """

    name: str
    regions: Sequence[str | Region]
    metrics: Sequence[str]
    num_bins: int = 15
    reductions: Sequence[str] = ("macro",)
    description: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or type(self.num_bins) is not int:
            raise ValueError(
                f"protocol {self.name!r:.100}: num_bins: expected a whole number, got {self.num_bins!r:.100}"
            )
        for field in ("regions", "metrics", "reductions"):
            if not isinstance(getattr(self, field), (list, tuple)) or not getattr(self, field):
                raise ValueError(f"protocol {self.name!r}: {field} must be a list with at least one entry")
        for field, known in (("metrics", METRICS), ("reductions", REDUCTIONS)):
            unknown = [entry for entry in getattr(self, field) if not isinstance(entry, str) or entry not in known]
            if unknown:
                raise ValueError(f"protocol {self.name!r}: unknown {field} {unknown}; expected {', '.join(known)}")
        of_raters = [name for name in self.metrics if METRICS[name].against != "label"]
        if of_raters and "micro" in self.reductions:
            raise ValueError(
                f"protocol {self.name!r}: {', '.join(of_raters)}: expected the reduction 'macro' alone, since raters "
                "differ from case to case. Put what is to be pooled into a protocol of its own."
            )
        coarse_of_fine(FINE_BINS, self.num_bins)
        object.__setattr__(self, "regions", tuple(Region.parse(region) for region in self.regions))
        object.__setattr__(self, "metrics", tuple(self.metrics))
        object.__setattr__(self, "reductions", tuple(self.reductions))

    @classmethod
    def from_config(cls, config: str | Mapping[str, Any] | Protocol) -> Protocol:
        """A protocol by its name in :data:`PROTOCOLS`, or from the arguments in a plain mapping.

        What was written under a name of :data:`RENAMED`, or with an older description, is the protocol of today.

        Example:
            >>> Protocol.from_config({"name": "mine", "regions": ["all"], "metrics": ["ece"]}).reductions
            ('macro',)
        """
        if isinstance(config, Protocol):
            return config
        if isinstance(config, str):
            config = RENAMED.get(config, config)
            if config not in PROTOCOLS:
                raise ValueError(
                    f"unknown protocol {config!r}; expected {', '.join(PROTOCOLS)}, or a mapping of your own"
                )
            return PROTOCOLS[config]
        if not isinstance(config, Mapping):
            raise ValueError(f"protocol: expected a name or a mapping, got {config!r:.100}")
        try:
            found = cls(**config)
        except TypeError as error:
            raise ValueError(f"protocol {config.get('name')!r:.100}: {error}") from error
        known = PROTOCOLS.get(RENAMED.get(found.name, found.name), found)
        return known if replace(found, name=known.name, description=known.description) == known else found

    def case_metrics(self, classes: Sequence[str]) -> list[Metric]:
        """Its metrics of one case, one a region and kind.

        Args:
            classes: names of the channels.
        """
        metrics = []
        for region in map(Region.parse, self.regions):
            for kind in self.metrics:
                row = METRICS[kind]
                bins = self.num_bins if row.binned else None
                metrics.append(
                    Metric(
                        name=f"{kind}_{region.name}" + (f"_{bins}bins" if bins else ""),
                        kind=kind,
                        region=region.name,
                        bins=bins,
                        per="class" if row.per_class else "case",
                        classes=tuple(classes) if row.per_class else (),
                        label=f"{row.words}, {region.words}" + (f", {bins} bins" if bins else ""),
                        unit=row.unit,
                        direction=row.direction,
                    )
                )
        return metrics

    def summary_metrics(self, classes: Sequence[str]) -> list[Metric]:
        """Its metrics of all cases, one a region, kind and reduction."""
        return [metric.reduced(reduction) for metric in self.case_metrics(classes) for reduction in self.reductions]

    def to_config(self) -> dict[str, Any]:
        """The arguments in a plain mapping, which :meth:`from_config` reads."""
        return {
            "name": self.name,
            "regions": [str(region) for region in self.regions],
            "metrics": list(self.metrics),
            "num_bins": self.num_bins,
            "reductions": list(self.reductions),
            "description": self.description,
        }


BAND = 2.0
"""Width in mm of the bands of the protocol by_region."""

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "paper",
            regions=["foreground"],
            metrics=["ece", "classwise_ece_paper", "adaptive_ece"],
            description="The papers' protocol: voxels whose true label is not 0, 15 bins (lower, upper], class-wise "
            "error over classes 0 to the highest label in the volume without threshold, mean over volumes. "
            "Conditioning on the truth rewards over-segmentation: read it beside the protocol by_region.",
        ),
        Protocol(
            "by_region",
            regions=["all", "predicted", "union", "dilated:2mm", "boundary:2mm", "bbox"],
            metrics=["ece", "classwise_ece", "nll", "brier"],
            reductions=REDUCTIONS,
            description="Regions that do not depend on the truth alone: the whole volume, the predicted foreground, "
            "the union of truth and prediction (above 0 even for a perfect posterior), that union dilated, a band of "
            "2 mm around either boundary, the bounding box. Proper scores, "
            "ECE over 15 bins, class-wise error with absent classes left out; mean over cases (macro) and over "
            "voxels (micro).",
        ),
        Protocol(
            "by_region_px",
            regions=["all", "predicted", "union", "dilated:2vx", "boundary:2vx", "bbox"],
            metrics=["ece", "classwise_ece", "nll", "brier"],
            reductions=REDUCTIONS,
            description="The protocol by_region for images whose voxels have no known size, or are longer than 2 mm "
            "along every axis, so that a band of 2 mm would hold none: bands of 2 voxels.",
        ),
        Protocol(
            "raters",
            regions=["all", "union", "consensus", "dissensus"],
            metrics=[
                *("ece", "rater_ece", "classwise_ece", "rater_classwise_ece"),
                *("nll", "least_nll", "brier", "least_brier"),
            ],
            description="Labels of several raters: errors against their mean label and against each rater, averaged; "
            "proper scores, which are the mean over the raters, beside the least that their disagreement leaves; in "
            "the whole volume, where all raters agree and where they differ. Mean over cases.",
        ),
        Protocol(
            "by_region_sigmoid",
            regions=["all", "predicted", "union", "dilated:2mm", "boundary:2mm", "bbox"],
            metrics=["classwise_ece", "nll", "brier"],
            reductions=REDUCTIONS,
            description="The protocol by_region for sigmoid channels, which have no top label: class-wise ECE over "
            "15 bins; NLL and Brier score are sums over the channels. Regions are those of any channel.",
        ),
    )
}
"""Protocols by name."""
RENAMED = {"recommended" + more: "by_region" + more for more in ("", "_px", "_sigmoid")}
"""Names of protocols in version 0.1, which a loss shared, and those of today; both are read."""


def by_region_for(unit: str, spacing: Iterable[float]) -> str:
    """The name of the protocol whose band around boundaries holds voxels on a grid: of 2 mm, or of 2 voxels.

    Args:
        unit: ``"mm"``, or ``"px"`` where the size of a voxel is not known.
        spacing: size of a voxel along each axis.

    Example:
        >>> by_region_for("mm", (1.5, 1.5, 10)), by_region_for("mm", (4, 4, 4)), by_region_for("px", (1, 1))
        ('by_region', 'by_region_px', 'by_region_px')
    """
    return "by_region" if unit == "mm" and min(spacing) <= BAND else "by_region_px"


def resolve_protocols(protocols: Sequence[str | Mapping[str, Any] | Protocol]) -> list[Protocol]:
    """Protocols from names, mappings or instances. Raises ``ValueError`` if two bear the same name."""
    if isinstance(protocols, (str, Mapping, Protocol)):
        protocols = [protocols]
    resolved = [Protocol.from_config(protocol) for protocol in protocols]
    names = [protocol.name for protocol in resolved]
    if len(set(names)) != len(names) or not names:
        raise ValueError(f"expected at least one protocol, each with a name of its own, got {names}")
    return resolved
