"""The common scale that intensities are brought to."""

from __future__ import annotations

from typing import Any

from .choices import Plan
from .fingerprint import Fingerprint

__all__ = ["plan_intensity"]

STRIPPED = 0.3
"""Share of voxels that are exactly 0 from which on they count as air that was set to 0."""


def plan_intensity(plan: Plan, seen: Fingerprint) -> None:
    """Choose between a window in HU, the whole range of 8 bits, and mean and deviation of each image."""
    first = seen.intensity[0]
    image_format = "magnitude"
    if seen.modality == "CT":
        low, high = (float(round(value)) for value in first.foreground)
        steps = _scaled(low, high, clip=True)
        text = f"Intensities from {low:g} to {high:g} HU are brought to 0 to 1, and others cut off."
        reason = "CT: 0.5th to 99.5th percentile of the voxels that bear a class"
        image_format = "hounsfield"
    elif seen.pictures and all(c.whole and c.least >= 0 and 1 < c.most <= 255 for c in seen.intensity):
        steps, text = _scaled(0.0, 255.0), "Intensities are divided by 255."
        reason = "pictures of 8 bits: brightness is part of the picture"
        image_format = "rgb" if seen.modality == "RGB" else "magnitude"
    else:
        stripped = first.zeros >= STRIPPED
        steps = [{"_target_": "NormalizeIntensityd", "keys": "image", "channel_wise": True}]
        whole = "Each channel of an image is brought to mean 0 and standard deviation 1"
        text = f"{whole}."
        reason = "the unit of intensity differs from image to image"
        if stripped:
            steps = [{"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True}]
            text = f"{whole} among the voxels that are not 0; what is 0 stays 0."
            reason += f"; {100 * first.zeros:.0f} % of the voxels are exactly 0 and left out"
    plan.add("intensity", text.rstrip("."), reason)
    plan.entry |= {"intensity": steps, "intensity_text": text, "image_format": image_format}


def _scaled(low: float, high: float, clip: bool = False) -> list[dict[str, Any]]:
    step = {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": low, "a_max": max(high, low + 1)}
    return [{**step, "b_min": 0, "b_max": 1, **({"clip": True} if clip else {})}]
