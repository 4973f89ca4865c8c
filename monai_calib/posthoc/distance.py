"""Signed distance to the predicted boundary, as TorchScript and ONNX can compute it too."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_calib.metrics.regions import bounding_box

__all__ = ["distance_in_boxes", "distance_to_boundary"]


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
    # In a voxel's own class channel lies the distance to the others, in every other channel 0.
    distance = nearest_squared(squared, spacing, reach).amax(1).sqrt().clamp(max=reach)
    return torch.where(predicted == 0, -distance, distance)


def nearest_squared(squared: Tensor, spacing: list[float], reach: float) -> Tensor:
    """``min_o squared(x + o) + |o|^2`` over steps ``o`` of at most ``reach`` mm along each axis in turn.

    Args:
        squared: ``(B, C, *spatial)``, 0 where a distance starts, else 1e6.
        spacing: voxel size in mm, one number an axis.
        reach: in mm.
    """
    far = 1e6
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
    return squared


def distance_in_boxes(predicted: Tensor, num_classes: int, spacing: Sequence[float], reach: float) -> Tensor:
    """:func:`distance_to_boundary` of one volume ``(*spatial)``, class by class within its bounding box.

    Memory is that of a few boxes, not of all classes: for volumes too large to keep.

    Example:
        >>> distance_in_boxes(torch.tensor([0, 0, 0, 1, 1]), 2, [2.0], 5.0).tolist()
        [-5.0, -4.0, -2.0, 2.0, 4.0]
    """
    distance = torch.full(predicted.shape, reach, dtype=torch.float32)
    labels = predicted.cpu()
    margin = [int(reach / step + 1e-5) + 1 for step in spacing]
    foreground = bounding_box(labels != 0, margin)
    for k in range(num_classes):
        box = foreground if k == 0 else bounding_box(labels == k, 1)
        if box is None:
            continue
        inside = labels[box] == k
        if not bool(inside.all()):
            squared = torch.where(inside, 1e6, 0.0)[None, None]
            found = nearest_squared(squared, list(spacing), reach)[0, 0].sqrt_().clamp_(max=reach)
            distance[box] = torch.where(inside, found, distance[box])
    return torch.where(labels == 0, -distance, distance).to(predicted.device)
