"""Expected Dice as a dictionary transform."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_calib.clinical.overlap import expected_dice

__all__ = ["ExpectedDiced", "expected_dice"]


class ExpectedDiced(MapTransform):
    """Adds ``expected_dice`` to a case: the Dice score to expect of each structure, from its probabilities.

    Args:
        keys: the probabilities ``(K, *spatial)``, after softmax and before argmax.
        class_names: of all channels; ``class 0 ...`` by default.
        output_key: where the result goes, ``{name: score}``.

    Example:
        >>> import torch
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
