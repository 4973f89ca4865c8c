"""The measurement protocols a file was made with, as the page names and explains them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Protocol", "read_protocol", "region_in_words"]

DEFAULT_BINS = 15


@dataclass(frozen=True)
class Protocol:
    """How calibration was measured: regions, bins, reductions over cases, and plain words about it."""

    name: str
    regions: tuple[str, ...]
    num_bins: int | None
    reductions: tuple[str, ...]
    description: str
    measures: tuple[str, ...]

    @property
    def diagram_bins(self) -> int:
        """Bins of its reliability diagrams."""
        return self.num_bins or DEFAULT_BINS


def read_protocol(name: str, fields: Mapping[str, Any]) -> Protocol:
    """A protocol as calibration.json and before_after.json write it; ``KeyError`` or ``TypeError`` if incomplete."""
    regions = fields["regions"] if "regions" in fields else [fields["region"]]
    bins = fields.get("num_bins")
    return Protocol(
        name=str(name),
        regions=tuple(str(region) for region in regions),
        num_bins=None if bins is None else int(bins),
        reductions=tuple(str(x) for x in (fields["reductions"] if "reductions" in fields else [fields["reduction"]])),
        description=str(fields.get("description", "")),
        measures=tuple(str(measure) for measure in fields["metrics"]),
    )


def region_in_words(name: str) -> str:
    """What a region's name in the reports means; a name of the user's own stays as it is.

    Example:
        >>> region_in_words("boundary2mm"), region_in_words("all"), region_in_words("lung")
        ('boundary band of 2 mm', 'whole volume', 'lung')
    """
    found = re.fullmatch(r"(all|foreground|predicted|union|dilated|boundary|bbox)(?:([\d.]+)mm)?", name)
    if not found:
        return name
    kind, size = found.groups()
    words = {
        "all": "whole volume",
        "foreground": "true foreground",
        "predicted": "predicted foreground",
        "union": "union of truth and prediction",
        "dilated": f"union dilated by {size} mm",
        "boundary": f"boundary band of {size} mm",
        "bbox": "bounding box" + (f" and {size} mm" if size else ""),
    }
    return words[kind]
