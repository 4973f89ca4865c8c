"""Windows around voxels: their sizes, and borders widened by half of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["middle", "pad", "per_axis", "window"]


def per_axis(value: float | Sequence[float], axes: int, name: str) -> tuple[float, ...]:
    """One number for every axis, or one number for each.

    Example:
        >>> per_axis(3, 2, "kernel_size"), per_axis((1, 3), 2, "kernel_size")
        ((3, 3), (1, 3))
    """
    values = (value,) * axes if isinstance(value, (int, float)) else tuple(value)
    if len(values) != axes:
        raise ValueError(f"{name}: expected one number or one per axis, {axes}, got {value!r}.")
    return values


def window(kernel_size: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """``kernel_size`` per axis, checked to be positive and odd."""
    sizes = per_axis(kernel_size, axes, "kernel_size")
    if any(k != int(k) or k < 1 or k % 2 == 0 for k in sizes):
        raise ValueError(f"kernel_size: expected positive and odd numbers, for a centre, got {kernel_size!r}.")
    return tuple(int(k) for k in sizes)


def middle(shape: Sequence[int], sizes: Sequence[int]) -> tuple[Any, ...]:
    """Index of the image in what :func:`pad` makes of it."""
    return (..., *(slice(k // 2, k // 2 + n) for n, k in zip(shape, sizes, strict=True)))


def pad(x: Tensor, sizes: Sequence[int], value: float | None) -> Tensor:
    """Widen the trailing ``len(sizes)`` axes by half a window, with ``value`` or (None) by repeating the border."""
    first = x.ndim - len(sizes)
    if value is not None:
        out = x.new_full([*x.shape[:first], *(n + k - 1 for n, k in zip(x.shape[first:], sizes, strict=True))], value)
        out[middle(x.shape[first:], sizes)] = x
        return out
    for axis, k in enumerate(sizes, start=first):
        if k > 1:
            n = x.shape[axis]
            x = x.index_select(axis, torch.arange(-(k // 2), n + k // 2, device=x.device).clamp_(0, n - 1))
    return x
