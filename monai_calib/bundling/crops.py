"""The share of random crops that hold a structure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .fingerprint import Box

__all__ = ["share_of_crops"]


def share_of_crops(
    boxes: Sequence[tuple[Sequence[int], Sequence[Box | None]]], patch: Sequence[int], scale: Any = 1.0
) -> dict[int, float]:
    """Share of random crops that meet the box around each class, over the images that bear it.

    A crop begins anywhere, with equal probability, where it lies within the image. Along an axis of ``n`` voxels,
    ``n - p + 1`` crops of ``p`` voxels are possible; those meet a box ``[a, b)`` that begin before ``b`` and end behind
    ``a``. The axes' shares are multiplied.

    Args:
        boxes: shape of an image and the box of each class from 1 on.
        patch: voxels of a crop.
        scale: voxels of the network's grid for each voxel of the images, one number an axis.

    Returns: the share by class; a class that no image bears is left out.

    Example:
        >>> share_of_crops([((10,), [((0,), (2,))])], [4])
        {1: 0.2857142857142857}
    """
    shares: dict[int, list[float]] = {}
    for shape, of_classes in boxes:
        size = np.maximum(np.rint(np.asarray(shape) * scale), 1)
        window = np.minimum(patch, size)
        for number, box in enumerate(of_classes, start=1):
            if box is None:
                continue
            first = np.floor(np.asarray(box[0]) * scale)
            last = np.ceil(np.asarray(box[1]) * scale)
            lowest = np.maximum(first - window + 1, 0)
            highest = np.minimum(last - 1, size - window)
            meet = np.maximum(highest - lowest + 1, 0) / (size - window + 1)
            shares.setdefault(number, []).append(float(np.prod(meet)))
    return {number: float(np.mean(values)) for number, values in sorted(shares.items())}
