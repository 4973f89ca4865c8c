"""Distances between true and predicted surfaces in millimetres."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.handlers import from_engine
from monai.metrics.utils import get_edge_surface_distance

from monai_calib.handlers.case_metric import CaseMetric
from monai_calib.handlers.cases import Case
from monai_calib.labels import CheckedLabel, check_label, top_class
from monai_calib.metrics.metric import Metric

__all__ = ["SurfaceHandler", "surface_metrics"]


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
        class_names: names of all classes, background included; ``class 0 ...`` by default.
        ignore_index: label of voxels that count nowhere: prediction and label are background there.
        unit: ``"mm"``, or ``"px"`` where images have no voxel size: distances are then in pixels, whatever a header
            says, and the names of metrics end in it.

    Raises: ``ValueError`` naming the case on shapes that differ, or labels that are no class numbers.

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
        class_names: Sequence[str] | None = None,
        ignore_index: int | None = None,
        unit: str = "mm",
    ) -> None:
        if unit not in ("mm", "px"):
            raise ValueError(f"unit: expected 'mm' or 'px', got {unit!r}")
        if num_classes < 2 or not all(0 <= t < math.inf for t in tolerances_mm):
            raise ValueError(f"expected at least 2 classes and tolerances >= 0 mm, got {num_classes}, {tolerances_mm}")
        self.num_classes = num_classes
        self.tolerances_mm = tuple(float(t) for t in tolerances_mm)
        self.ignore_index = ignore_index
        self.unit = unit
        names = [f"class {k}" for k in range(num_classes)] if class_names is None else list(class_names)
        if len(names) != num_classes:
            raise ValueError(f"class_names: expected {num_classes}, got {names}")
        tolerances = [f"{t:g}{unit}" for t in self.tolerances_mm]
        metrics = [
            self._metric(f"hd95_{unit}", "hd95", "HD95", names, unit),
            self._metric(f"assd_{unit}", "assd", "ASSD", names, unit),
            *(
                self._metric(f"surface_dice_{t}", "surface_dice", f"surface Dice at {t}", names, "", 1)
                for t in tolerances
            ),
            self._metric("missed_rate", "missed_rate", "missed or invented", names, ""),
        ]
        super().__init__(metrics, output_transform or from_engine(["pred", "label"]), spacing, save_details)

    @staticmethod
    def _metric(name: str, kind: str, label: str, classes: list[str], unit: str, direction: int = -1) -> Metric:
        return Metric(name, kind, None, None, "class", tuple(classes[1:]), None, label, unit, direction)

    def measure(self, case: Case) -> dict[str, list[float]]:
        maps = []
        for what, given in (("prediction", case.prediction), ("label", case.label)):
            seen = self._class_numbers(given.cpu(), f"case {case.name}: {what}", what == "label")
            maps.append((seen.index, seen.valid))
        (prediction, _), (label, valid) = maps
        if valid is not None:
            prediction = prediction.masked_fill(~valid, 0)
        spacing = (1.0,) * label.ndim if self.unit == "px" else case.spacing
        classes = [
            surface_metrics(prediction == k, label == k, spacing, self.tolerances_mm)
            for k in range(1, self.num_classes)
        ]
        return {name: list(row) for name, row in zip(self.metrics, zip(*classes, strict=True), strict=True)}

    def _class_numbers(self, given: torch.Tensor, what: str, is_label: bool) -> CheckedLabel:
        """Of class numbers, which are checked, or of channels, of which the largest decides."""
        ignore = self.ignore_index if is_label else None
        if given.shape[0] == 1:
            return check_label(given[0], self.num_classes, ignore, what, look=True)
        if not bool((given >= 0).all() and (given <= 1).all()):  # also for NaN
            raise ValueError(f"{what}: expected one-hot channels or probabilities, got values outside 0 ... 1 or NaN")
        return check_label(top_class(given), self.num_classes, ignore, what, look=True)


def surface_metrics(
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
