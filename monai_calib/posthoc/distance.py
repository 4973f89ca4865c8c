"""Signed distance to the predicted boundary, as TorchScript and ONNX can compute it too."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["distance_to_boundary"]


def distance_to_boundary(predicted: Tensor, num_classes: int, spacing: list[float], reach: float) -> Tensor:
    """Distance in mm from each voxel to the nearest voxel of another predicted label, negative in the background.

    The exact squared distance, cut off at ``reach``, is the separable minimum ``min_o f(x + o) + (o spacing)^2``
    over the steps ``o`` within reach along each axis in turn. TorchScript compiles it.

    Args:
        predicted: class numbers ``(B, *spatial)``.
        num_classes: number of classes.
        spacing: voxel size in mm, one number an axis.
        reach: voxels farther away than this, or in a volume of one label, get ``reach``.

    Returns: float32 ``(B, *spatial)``.

    Example:
        >>> distance_to_boundary(torch.tensor([[0, 0, 0, 1, 1]]), 2, [2.0], 5.0).tolist()
        [[-5.0, -4.0, -2.0, 2.0, 4.0]]
    """
    far = 1e6  # mm; TorchScript sees no constants outside
    squared = torch.stack([torch.where(predicted == k, far, 0.0) for k in range(num_classes)], 1)
    for axis in range(2, squared.dim()):
        step = spacing[axis - 2]
        offsets = int(reach / step + 1e-5)
        padding = [0, 0] * (squared.dim() - 1 - axis) + [offsets, offsets]
        padded = F.pad(squared, padding, value=far)
        nearest = squared
        for offset in range(-offsets, offsets + 1):
            shifted = padded.narrow(axis, offset + offsets, squared.shape[axis])
            nearest = torch.minimum(nearest, shifted + (offset * step) ** 2)
        squared = nearest
    # In a voxel's own class channel lies the distance to the others, in every other channel 0.
    distance = squared.amax(1).sqrt().clamp(max=reach)
    return torch.where(predicted == 0, -distance, distance)
