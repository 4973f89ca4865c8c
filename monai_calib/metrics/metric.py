"""A metric: one column of results, described once, so that nothing composes or takes apart names again."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Metric", "mean_without_nan"]


@dataclass(frozen=True)
class Metric:
    """One column of results.

    Attributes:
        name: unique in an evaluated folder: ``"ece_boundary2mm_15bins"``, ``"mean_dice"``, ``"WT_dice"``; of a summary
            entry with its reduction: ``"ece_boundary2mm_15bins_macro"``.
        kind: what is measured, whatever the region: ``"ece"``, ``"nll"``, ``"dice"``, ``"hd95"`` ...
        region: name of the region, None for overlap and distance.
        bins: bins of a binned metric, else None.
        per: ``"case"`` for one value a case, ``"class"`` for one a class of ``classes``.
        classes: names that belong to the values where ``per == "class"``.
        reduction: of a summary entry: ``"macro"`` (mean over cases), ``"micro"`` (all voxels together), else None.
        label: in words for people: ``"ECE, within 2 mm of a boundary, 15 bins"``.
        unit: ``""``, ``"mm"``, ``"px"``, ``"nats"``.
        direction: -1 if smaller is better, 1 if larger is, 0 if neither.

    Raises: ``ValueError`` for fields of another kind, which only a damaged file has.

    Example:
        >>> metric = Metric("hd95_mm", "hd95", per="class", classes=("lesion",), label="HD95", unit="mm", direction=-1)
        >>> Metric.from_json(metric.to_json()) == metric
        True
    """

    name: str
    kind: str
    region: str | None = None
    bins: int | None = None
    per: str = "case"
    classes: tuple[str, ...] = ()
    reduction: str | None = None
    label: str = ""
    unit: str = ""
    direction: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        texts = (self.name, self.kind, self.label, self.unit, *self.classes)
        fits = (
            all(isinstance(text, str) for text in texts)
            and self.name != ""
            and (self.region is None or isinstance(self.region, str))
            and (self.bins is None or (type(self.bins) is int and 0 < self.bins <= 10**6))
            and self.per in ("case", "class")
            and (self.per == "class") == bool(self.classes)
            and self.reduction in (None, "macro", "micro")
            and self.direction in (-1, 0, 1)
        )
        if not fits:
            raise ValueError(f"metric: expected the fields of a Metric, got {dataclasses.asdict(self)}")

    def reduced(self, reduction: str) -> Metric:
        """The summary entry of this metric: ``<name>_macro`` or ``<name>_micro``, one value for all cases."""
        words = {"macro": "mean over cases", "micro": "all voxels together"}[reduction]
        return dataclasses.replace(
            self,
            name=f"{self.name}_{reduction}",
            per="case",
            classes=(),
            reduction=reduction,
            label=f"{self.label or self.name}, {words}",
        )

    def prefixed(self, prefix: str) -> Metric:
        """This metric of a part of the problem, such as ``WT_`` for the whole tumour; itself without a prefix."""
        if not prefix:
            return self
        part = prefix.rstrip("_ ")
        return dataclasses.replace(self, name=prefix + self.name, label=f"{part}: {self.label or self.name}")

    def to_json(self) -> dict[str, Any]:
        """A plain mapping of the fields that say something."""
        default = {field.name: field.default for field in dataclasses.fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
            if value != default[name]
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Metric:
        """The metric that :meth:`to_json` wrote. Raises ``ValueError`` for anything else."""
        if not isinstance(data, Mapping):
            raise ValueError(f"metric: expected a mapping, got {type(data).__name__}")
        fields = {field.name for field in dataclasses.fields(cls)}
        known = {name: value for name, value in data.items() if name in fields}
        try:
            return cls(**known)
        except TypeError as error:
            raise ValueError(f"metric: {error}") from error


def mean_without_nan(values: Sequence[float]) -> float:
    """Mean of the values that are numbers, NaN if there is none.

    Example:
        >>> mean_without_nan([1.0, math.nan, 2.0]), mean_without_nan([math.nan])
        (1.5, nan)
    """
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
