"""The Dice score to expect of a segmentation, from calibrated probabilities, without ground truth."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_calib.clinical.truth import check_probability

__all__ = ["ExpectedDiced", "expected_dice"]


def expected_dice(probability: torch.Tensor) -> list[float]:
    """Expected Dice of each structure of the label map, background left out: ``2 sum_S p / (|S| + sum p)``.

    ``S`` are the voxels where the structure's probability is the largest. It is the ratio of expectations, which for
    structures of more than a few dozen independent patches differs little from the expectation of the ratio. It is as
    right as the probabilities are: an over-confident network expects too much.

    Args:
        probability: ``(K, *spatial)``.

    Returns: K - 1 numbers; NaN where nothing is predicted and less than half a voxel is expected.

    Source: of the idea, Kwon et al., Computational Statistics and Data Analysis 2020, and Li et al., MICCAI 2020.

    Example:
        >>> p = torch.tensor([0.9, 0.8, 0.1])
        >>> round(expected_dice(torch.stack([1 - p, p]))[0], 3)  # 2 * 1.7 / (2 + 1.8)
        0.895
    """
    probability = check_probability(probability)
    label = probability.argmax(0)
    scores = []
    for k in range(1, len(probability)):
        p, predicted = probability[k].double(), label == k
        size, expected = int(predicted.sum()), float(p.sum())
        nothing = size == 0 and expected < 0.5
        scores.append(math.nan if nothing else 2 * float(p[predicted].sum()) / (size + expected))
    return scores


class ExpectedDiced(MapTransform):
    """Adds ``expected_dice`` to a case: the Dice score to expect of each structure, from its probabilities.

    Args:
        keys: the probabilities ``(K, *spatial)``, after softmax and before argmax.
        class_names: of all channels; ``class 0 ...`` by default.
        output_key: where the result goes, ``{name: score}``.

    Example:
        >>> p = torch.tensor([0.9, 0.8, 0.1])
        >>> case = ExpectedDiced("prob", ["background", "tumour"])({"prob": torch.stack([1 - p, p])})
        >>> round(case["expected_dice"]["tumour"], 3)
        0.895
    """

    def __init__(
        self, keys: KeysCollection, class_names: Sequence[str] | None = None, output_key: str = "expected_dice"
    ) -> None:
        super().__init__(keys)
        self.class_names, self.output_key = class_names, output_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        for key in self.key_iterator(case):
            names = self.class_names or [f"class {k}" for k in range(len(case[key]))]
            case[self.output_key] = dict(zip(names[1:], expected_dice(case[key]), strict=True))
        return case
