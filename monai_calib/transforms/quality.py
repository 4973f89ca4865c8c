"""Flag of cases that a person should look at, as a dictionary transform."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import Transform

from monai_calib.clinical.quality import QUALITY_FORMAT, QualityThreshold, reasons_to_check
from monai_calib.files import read_json

__all__ = ["QualityFlagd"]


class QualityFlagd(Transform):
    """Adds ``quality`` to a case: ``{"flag": "ok" or "check", "reasons": [...]}``.

    A case is to be checked if a structure's expected Dice is below ``lowest_dice``; if the interval of its volume is
    wider than ``widest_interval`` times the expected volume; or if nothing of it is predicted though some is
    expected. List it after :class:`ExpectedDiced` and :class:`ExpectedVolumed`. Thresholds belong to a task: set them
    where cases of the validation set begin to need correction, or by a
    :class:`~monai_calib.clinical.QualityThreshold`, which says how many failed cases may pass.

    Args:
        lowest_dice: smallest expected Dice that needs no look: a number, a threshold that was fitted with the least
            expected Dice of each case, what its ``to_json`` gave, or a JSON file with that.
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
        lowest_dice: float | QualityThreshold | Mapping[str, Any] | str | os.PathLike[str] = 0.7,
        widest_interval: float = 0.5,
        dice_key: str = "expected_dice",
        volumes_key: str = "volumes",
        output_key: str = "quality",
    ) -> None:
        if not widest_interval > 0:
            raise ValueError(f"widest_interval: expected a positive number, got {widest_interval}")
        self.lowest_dice, self.widest_interval = _threshold(lowest_dice), widest_interval
        self.dice_key, self.volumes_key, self.output_key = dice_key, volumes_key, output_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key, transform in ((self.dice_key, "ExpectedDiced"), (self.volumes_key, "ExpectedVolumed")):
            if key not in data:
                raise KeyError(f"the case has no {key!r}: list {transform} before QualityFlagd")
        reasons = reasons_to_check(data[self.dice_key], data[self.volumes_key], self.lowest_dice, self.widest_interval)
        return {**data, self.output_key: {"flag": "check" if reasons else "ok", "reasons": reasons}}


def _threshold(
    given: float | QualityThreshold | Mapping[str, Any] | str | os.PathLike[str],
) -> float | QualityThreshold:
    if isinstance(given, QualityThreshold):
        return given
    if isinstance(given, Mapping):
        return QualityThreshold.from_json(given)
    if isinstance(given, (str, os.PathLike)):
        return QualityThreshold.from_json(read_json(given, QUALITY_FORMAT, "Fit the threshold again."))
    if not 0 <= given <= 1:
        raise ValueError(f"lowest_dice: expected a number between 0 and 1 or a fitted threshold, got {given}")
    return given
