"""Distances between true and predicted surfaces in millimetres."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.handlers import from_engine
from monai.metrics.utils import get_edge_surface_distance

from monai_calib.handlers.case_metric import CaseMetric
from monai_calib.handlers.cases import Case, index_map

__all__ = ["SurfaceHandler", "surface_figures"]


class SurfaceHandler(CaseMetric):
    """HD95, ASSD and surface Dice of each class, in mm, with each case's own voxel spacing.

    Surfaces and distances are MONAI's; from one set of distances follow

    - ``hd95_mm``: the larger of the two directed 95th percentiles,
    - ``assd_mm``: the mean over both surfaces,
    - ``surface_dice_<t>mm``: the share of both surfaces at most ``t`` mm from the other,
    - ``missed_rate``: 1 for a structure that is in only one of truth and prediction, else 0.

    A structure in only one of the two has no distance, and leaving it out would reward missing it: it scores the
    diagonal of the volume in mm, a surface Dice of 0, and shows in ``missed_rate``. In neither: left out (NaN).

    Args:
        num_classes: number of classes with background, which is not measured.
        tolerances_mm: tolerances of the surface Dice in mm.
        output_transform: takes the engine's output to ``(prediction, label)``: class indices ``(1, *spatial)`` or
            one-hot channels ``(num_classes, *spatial)``; of probabilities the largest decides.
        spacing: voxel size in mm of cases without a header.
        save_details: whether to keep the rows (cases x foreground classes) for ``MetricsSaver``.

    Raises: ``ValueError`` naming the case on shapes that differ or a class out of range.

    Example:
        >>> from ignite.engine import Engine
        >>> truth, prediction = torch.zeros(2, 1, 1, 8, 8)
        >>> truth[..., 2:5, 2:5], prediction[..., 2:5, 2:6] = 1, 1
        >>> evaluator = Engine(lambda engine, batch: batch)
        >>> handler = SurfaceHandler(2, output_transform=lambda output: output, spacing=(1.0, 3.0))
        >>> handler.attach(evaluator)
        >>> evaluator.run([(prediction, truth)]).metrics["hd95_mm"]
        3.0
    """

    def __init__(
        self,
        num_classes: int,
        tolerances_mm: Sequence[float] = (1.0,),
        output_transform: Callable[[Any], Any] | None = None,
        spacing: Sequence[float] | None = None,
        save_details: bool = True,
    ) -> None:
        if num_classes < 2 or not all(0 <= t < math.inf for t in tolerances_mm):
            raise ValueError(f"expected at least 2 classes and tolerances >= 0 mm, got {num_classes}, {tolerances_mm}")
        self.num_classes = num_classes
        self.tolerances_mm = tuple(float(t) for t in tolerances_mm)
        names = ["hd95_mm", "assd_mm", *(f"surface_dice_{t:g}mm" for t in self.tolerances_mm), "missed_rate"]
        transform = output_transform or from_engine(["pred", "label"])
        super().__init__(dict(zip(names, names, strict=True)), transform, spacing, save_details)

    def measure(self, case: Case) -> dict[str, list[float]]:
        prediction, label = index_map(case.prediction).cpu(), index_map(case.label).cpu()
        for what, indices in (("prediction", prediction), ("label", label)):
            low, high = indices.min().item(), indices.max().item()
            if not (low >= 0 and high < self.num_classes):
                raise ValueError(f"case {case.name}: the {what} must hold 0..{self.num_classes - 1}, got {low}..{high}")
        classes = [
            surface_figures(prediction == k, label == k, case.spacing, self.tolerances_mm)
            for k in range(1, self.num_classes)
        ]
        return {name: list(row) for name, row in zip(self.figures, zip(*classes, strict=True), strict=True)}


def surface_figures(
    prediction: torch.Tensor, label: torch.Tensor, spacing: Sequence[float], tolerances_mm: Sequence[float]
) -> list[float]:
    """HD95, ASSD, a surface Dice for each tolerance, and whether the structure is in only one of the two masks.

    Args:
        prediction: bool ``(*spatial)``, 2D or 3D.
        label: bool ``(*spatial)``.
        spacing: voxel size in mm along each axis.
        tolerances_mm: tolerances in mm.
    """
    in_prediction, in_label = bool(prediction.any()), bool(label.any())
    if not (in_prediction or in_label):
        return [math.nan] * (3 + len(tolerances_mm))
    if not (in_prediction and in_label):
        diagonal = math.dist((0.0,) * label.ndim, [n * s for n, s in zip(label.shape, spacing, strict=True)])
        return [diagonal, diagonal, *(0.0 for _ in tolerances_mm), 1.0]
    _, distances, _ = get_edge_surface_distance(prediction, label, spacing=list(spacing), symmetric=True)
    both = torch.cat(distances)
    hd95 = max(float(torch.quantile(d, 0.95)) for d in distances)
    # The tolerance meets distances rounded to float32: a surface at exactly 1.4 mm is within 1.4 mm.
    within = [float((both <= t * (1 + 1e-6)).double().mean()) for t in tolerances_mm]
    return [hd95, float(both.mean()), *within, 0.0]
