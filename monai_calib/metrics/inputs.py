"""Prediction, label and mask, in the many forms they come in, flattened to one."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch

from monai_calib.labels import as_plain_tensor

__all__ = ["Activation", "Flat", "flatten_inputs"]

Activation = Literal["softmax", "sigmoid"]


class Flat(NamedTuple):
    """Views, not copies, of one batch: ``prediction (B, K, N)``, ``label (B, N)`` or ``(B, K, N)``, ``mask (B, N)``."""

    prediction: torch.Tensor
    label: torch.Tensor
    mask: torch.Tensor | None


def _without_channel(value: torch.Tensor, shape: tuple[int, ...], name: str) -> torch.Tensor:
    batch, spatial = shape[0], shape[2:]
    if value.shape not in ((batch, 1, *spatial), (batch, *spatial)):
        expected = f"{(batch, 1, *spatial)} or {(batch, *spatial)}"
        if name == "label":
            expected += f", or one channel a class {shape}"
        raise ValueError(f"{name}: expected shape {expected} beside a prediction of {shape}, got {tuple(value.shape)}")
    return value.reshape(batch, -1)


def flatten_inputs(prediction: Any, label: Any, mask: Any, num_classes: int, activation: Activation) -> Flat:
    """Check the shapes and flatten the spatial axes.

    Args:
        prediction: ``(B, K, *spatial)``, tensor (MetaTensor too) or array (memory map too), any floating dtype.
        label: ``(B, 1, *spatial)`` or ``(B, *spatial)`` class numbers, or ``(B, K, *spatial)`` one-hot or
            soft; with ``activation="sigmoid"`` always ``(B, K, *spatial)``, since a voxel may bear several labels.
        mask: ``(B, 1, *spatial)`` or ``(B, *spatial)``, nonzero where a voxel counts; or ``None`` for all.

    Raises: ``TypeError`` for integer predictions; ``ValueError`` for shapes that do not fit, with both shapes.

    Example:
        >>> flat = flatten_inputs(torch.zeros(2, 3, 4, 5), torch.zeros(2, 1, 4, 5), None, 3, "softmax")
        >>> tuple(flat.prediction.shape), tuple(flat.label.shape)
        ((2, 3, 20), (2, 20))
    """
    prediction, label = as_plain_tensor(prediction), as_plain_tensor(label)
    shape = tuple(prediction.shape)
    if not prediction.is_floating_point():
        raise TypeError(
            f"prediction: expected floating point logits or probabilities, got {prediction.dtype}; "
            "class numbers or one-hot masks carry no confidence, pass the network's output before argmax"
        )
    if prediction.ndim < 3 or shape[1] != num_classes:
        raise ValueError(f"prediction: expected shape (B, {num_classes}, *spatial), got {shape}")
    if label.shape == prediction.shape and (num_classes > 1 or activation == "sigmoid"):
        flat_label = label.flatten(2)
    elif activation == "sigmoid":
        raise ValueError(
            f"label: expected one channel a class, {shape}, for multi-label (sigmoid) predictions, "
            f"got {tuple(label.shape)}"
        )
    else:
        flat_label = _without_channel(label, shape, "label")
    flat_mask = None if mask is None else _without_channel(as_plain_tensor(mask), shape, "mask")
    for name, value in (("label", flat_label), ("mask", flat_mask)):
        if value is not None and value.device != prediction.device:
            raise ValueError(f"{name}: expected on {prediction.device} like the prediction, got {value.device}")
    return Flat(prediction.flatten(2), flat_label, flat_mask)
