"""Reasons why a person should look at a case."""

from __future__ import annotations

import math
from collections.abc import Mapping

__all__ = ["reasons_to_check"]


def reasons_to_check(
    dice: Mapping[str, float],
    volumes: Mapping[str, Mapping[str, float]],
    lowest_dice: float = 0.7,
    widest_interval: float = 0.5,
) -> list[str]:
    """List why a case should be checked; empty if nothing speaks for it.

    Args:
        dice: expected Dice of each structure.
        volumes: of each structure ``ml``, ``low_ml``, ``high_ml`` and ``label_ml``.
        lowest_dice: smallest expected Dice that needs no look.
        widest_interval: largest ``(high - low) / expected`` volume that needs no look.

    Example:
        >>> volumes = {"tumour": {"ml": 2.0, "low_ml": 1.0, "high_ml": 3.0, "label_ml": 2.1}}
        >>> reasons_to_check({"tumour": 0.9}, volumes)
        ['tumour: 1.00 ... 3.00 ml, too wide an interval']
    """
    reasons = []
    for name, score in dice.items():
        if score < lowest_dice:
            reasons.append(f"{name}: expected Dice {score:.2f}, below {lowest_dice:.2f}")
    for name, volume in volumes.items():
        if volume["label_ml"] == 0:
            if volume["high_ml"] > 0 and not math.isnan(dice.get(name, 0.0)):
                reasons.append(f"{name}: not found, though {volume['ml']:.2g} ml are expected")
        elif volume["high_ml"] - volume["low_ml"] > widest_interval * volume["ml"]:
            reasons.append(f"{name}: {volume['low_ml']:.2f} ... {volume['high_ml']:.2f} ml, too wide an interval")
    return reasons
