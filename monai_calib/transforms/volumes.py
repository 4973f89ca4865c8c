"""Expected volumes as a dictionary transform."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from monai_calib.clinical.volumes import (
    VolumeEstimate,
    VolumeFit,
    VolumeModel,
    expected_volume,
    volume_deviation,
    volume_error,
)
from monai_calib.datasets.case import spacing_of

__all__ = [
    "ExpectedVolumed",
    "VolumeEstimate",
    "VolumeFit",
    "VolumeModel",
    "expected_volume",
    "volume_deviation",
    "volume_error",
]


class ExpectedVolumed(MapTransform):
    """Adds ``volumes`` to a case: expected volume of each structure with its 95 % interval, from its probabilities.

    Args:
        keys: the probabilities ``(K, *spatial)``, after softmax and before argmax.
        models: see :func:`~monai_calib.clinical.expected_volume`; without a fit of one's own, a correlation length
            of 2 to 4 mm is a guess.
        class_names: of all channels; ``class 0 ...`` by default.
        spacing: voxel size in mm of cases without a header.
        level: coverage of the interval.
        output_key: where the result goes: ``{name: {"ml", "low_ml", "high_ml", "label_ml"}}``.

    Example:
        >>> import torch
        >>> p = torch.full((1, 10, 10, 10), 0.3)
        >>> case = {"prob": MetaTensor(torch.cat([1 - p, p]), affine=torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0])))}
        >>> round(ExpectedVolumed("prob", models=2.0)(case)["volumes"]["class 1"]["ml"], 3)
        0.6
    """

    def __init__(
        self,
        keys: KeysCollection,
        models: VolumeModel | float | Sequence[VolumeModel | float],
        class_names: Sequence[str] | None = None,
        spacing: Sequence[float] | None = None,
        level: float = 0.95,
        output_key: str = "volumes",
    ) -> None:
        super().__init__(keys)
        self.models, self.class_names, self.spacing = models, class_names, spacing
        self.level, self.output_key = level, output_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        for key in self.key_iterator(case):
            probability = case[key]
            estimates = expected_volume(probability, _spacing_of(probability, self.spacing), self.models, self.level)
            names = self.class_names or [f"class {k}" for k in range(len(probability))]
            case[self.output_key] = {
                name: estimate._asdict() for name, estimate in zip(names[1:], estimates, strict=True)
            }
        return case


def _spacing_of(probability: Any, default: Sequence[float] | None) -> tuple[float, ...]:
    found = spacing_of(probability, probability.ndim - 1) if isinstance(probability, MetaTensor) else None
    if found is not None:
        return found
    if default is None:
        raise ValueError("volumes in ml need the voxel size: load a header (MetaTensor), or pass spacing in mm")
    return tuple(float(step) for step in default)
