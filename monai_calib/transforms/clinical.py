"""Statements about a case as dictionary transforms: their fit on validation cases, and new cases."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform

from monai_calib.clinical.case_model import ClinicalModel
from monai_calib.clinical.inputs import image_statistics
from monai_calib.datasets.case import case_name, spacing_of

__all__ = ["Clinicald", "FitClinicald", "ImageStatisticsd"]


class ImageStatisticsd(MapTransform):
    """Adds ``statistics`` to a case: the numbers by which images are compared with those of training.

    List it last in preprocessing: intensities are those that the network sees, sizes those of the file.

    Args:
        keys: the image ``(C, *spatial)``.
        output_key: where the numbers go, one tensor.

    Example:
        >>> case = ImageStatisticsd("image")({"image": MetaTensor(torch.zeros(1, 4, 4, 2), affine=torch.eye(4))})
        >>> case["statistics"].shape
        torch.Size([12])
    """

    def __init__(self, keys: KeysCollection, output_key: str = "statistics") -> None:
        super().__init__(keys)
        self.output_key = output_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        for key in self.key_iterator(case):
            image = case[key]
            affine = image.meta.get("original_affine", image.affine)
            shape = [int(size) for size in image.meta.get("spatial_shape", image.shape[1:])]
            found = image_statistics(image.numpy(force=True), torch.as_tensor(affine).numpy(force=True), shape)
            case[self.output_key] = torch.from_numpy(found)
        return case


class FitClinicald(Transform):
    """Adds validation cases to a :class:`~monai_calib.clinical.ClinicalModel`; the case passes unchanged.

    Args:
        model: what is fitted.
        keys: the probabilities ``(K, *spatial)``, as they will be for new cases.
        label_key: class numbers ``(1, *spatial)`` on the same grid.
        statistics_key: of :class:`ImageStatisticsd`, if there are any.
        image_key: whose channels the statistics are of.

    Raises: ``ValueError`` naming the case.
    """

    def __init__(
        self,
        model: ClinicalModel,
        keys: str = "pred",
        label_key: str = "label",
        statistics_key: str = "statistics",
        image_key: str = "image",
    ) -> None:
        self.model, self.key, self.label_key = model, keys, label_key
        self.statistics_key, self.image_key = statistics_key, image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        probability = case[self.key]
        name, subject = _name(case, probability), case.get("subject")
        self.model.update(probability, case[self.label_key], _spacing(probability, name), subject, name)
        if self.statistics_key in case:
            channels = len(case[self.image_key])
            self.model.update_image(case[self.statistics_key], channels, subject)
        return case


class Clinicald(Transform):
    """Adds ``statement`` to a case: a :class:`~monai_calib.clinical.CaseStatement` from its probabilities.

    Args:
        model: a fitted :class:`~monai_calib.clinical.ClinicalModel`.
        keys: the probabilities ``(K, *spatial)``, after softmax and before argmax.
        statistics_key: of :class:`ImageStatisticsd`, if there are any.
        output_key: where the statement goes.

    Raises: ``ValueError`` naming the case.
    """

    def __init__(
        self,
        model: ClinicalModel,
        keys: str = "prob",
        statistics_key: str = "statistics",
        output_key: str = "statement",
    ) -> None:
        self.model, self.key, self.statistics_key, self.output_key = model, keys, statistics_key, output_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        probability = data[self.key]
        name = _name(data, probability)
        try:
            said = self.model.apply(probability, _spacing(probability, name), data.get(self.statistics_key))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        return {**data, self.output_key: said}


def _name(case: Mapping[Hashable, Any], probability: Any) -> str:
    meta = probability.meta if isinstance(probability, MetaTensor) else {}
    return case_name(case.get("case"), meta.get("filename_or_obj")) or "case"


def _spacing(probability: Any, name: str) -> tuple[float, ...]:
    found = spacing_of(probability, probability.ndim - 1) if isinstance(probability, MetaTensor) else None
    if found is None:
        raise ValueError(f"{name}: expected a voxel size, got none: load a header (MetaTensor)")
    return found
