"""Flag of cases that a person should look at, as a dictionary transform."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import Transform

from monai_calib.clinical.quality import reasons_to_check

__all__ = ["QualityFlagd"]


class QualityFlagd(Transform):
    """Adds ``quality`` to a case: ``{"flag": "ok" or "check", "reasons": [...]}``.

    A case is to be checked if a structure's expected Dice is below ``lowest_dice``; if the interval of its volume is
    wider than ``widest_interval`` times the expected volume; or if nothing of it is predicted though some is
    expected. List it after :class:`ExpectedDiced` and :class:`ExpectedVolumed`. Thresholds belong to a task: set them
    where cases of the validation set begin to need correction.

    Args:
        lowest_dice: smallest expected Dice that needs no look.
        widest_interval: largest ``(high - low) / expected`` volume that needs no look.
        dice_key, volumes_key: where the two results are.
        output_key: where the flag goes.

    Raises: ``KeyError`` saying which transform is missing before this one.

    Example:
        >>> volumes = {"tumour": {"ml": 2.0, "low_ml": 1.5, "high_ml": 2.5, "label_ml": 2.1}}
        >>> QualityFlagd(lowest_dice=0.7)({"expected_dice": {"tumour": 0.6}, "volumes": volumes})["quality"]
        {'flag': 'check', 'reasons': ['tumour: expected Dice 0.60, below 0.70']}
    """

    def __init__(
        self,
        lowest_dice: float = 0.7,
        widest_interval: float = 0.5,
        dice_key: str = "expected_dice",
        volumes_key: str = "volumes",
        output_key: str = "quality",
    ) -> None:
        if not 0 <= lowest_dice <= 1 or not widest_interval > 0:
            raise ValueError(
                f"expected lowest_dice between 0 and 1 and a positive widest_interval, "
                f"got {lowest_dice} and {widest_interval}"
            )
        self.lowest_dice, self.widest_interval = lowest_dice, widest_interval
        self.dice_key, self.volumes_key, self.output_key = dice_key, volumes_key, output_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key, transform in ((self.dice_key, "ExpectedDiced"), (self.volumes_key, "ExpectedVolumed")):
            if key not in data:
                raise KeyError(f"the case has no {key!r}: list {transform} before QualityFlagd")
        reasons = reasons_to_check(data[self.dice_key], data[self.volumes_key], self.lowest_dice, self.widest_interval)
        return {**data, self.output_key: {"flag": "check" if reasons else "ok", "reasons": reasons}}
