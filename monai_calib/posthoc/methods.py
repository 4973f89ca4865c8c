"""The methods by name, as a bundle's configuration calls them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_calib.posthoc.base import Calibrator
from monai_calib.posthoc.boundary import BoundaryTemperature
from monai_calib.posthoc.boundary_vector import BoundaryVector
from monai_calib.posthoc.isotonic import HistogramBinning, IsotonicRegression
from monai_calib.posthoc.local import LocalTemperature
from monai_calib.posthoc.temperature import TemperatureScaling
from monai_calib.posthoc.vector import ClasswiseTemperature, DirichletScaling, MatrixScaling, VectorScaling

__all__ = ["METHODS", "build_calibrator"]

METHODS: dict[str, type[Calibrator]] = {
    kind.method: kind
    for kind in (
        TemperatureScaling,
        ClasswiseTemperature,
        VectorScaling,
        MatrixScaling,
        DirichletScaling,
        BoundaryTemperature,
        BoundaryVector,
        LocalTemperature,
        HistogramBinning,
        IsotonicRegression,
    )
}
"""Every method by its name."""


def build_calibrator(
    method: str, num_classes: int, region: str | None = None, arguments: Mapping[str, Any] | None = None
) -> Calibrator:
    """A calibrator by name. Raises ``ValueError`` for a name there is not.

    Example:
        >>> build_calibrator("matrix", 3, arguments={"off_diagonal": 0.01}).foldable
        True
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; expected one of {', '.join(METHODS)}")
    return METHODS[method](num_classes, region=region, **(arguments or {}))
