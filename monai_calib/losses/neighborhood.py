"""Neighbourhood operator: class proportions that the labels around a voxel suggest for it."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .arguments import one_of
from .neighborhood_cpu import image_guided_proportions
from .window import middle, pad, per_axis, window

__all__ = ["IMAGE_GUIDED", "KERNEL_OPS", "PADDINGS", "label_proportions", "outer_voxels"]

IMAGE_GUIDED = ("image_proportions_l1", "image_proportions_l2")
KERNEL_OPS = ("mean", "gaussian", "mode", "median", "max", "min", *IMAGE_GUIDED)
PADDINGS = ("replicate", "valid", "background", "zeros")


def _along(x: Tensor, axis: int, weights: Sequence[float] | int) -> Tensor:
    """Sum of the shifted copies of ``x`` along ``axis``: ``weights`` of them, or weighted by ``weights``."""
    taps = weights if isinstance(weights, int) else len(weights)
    n = x.shape[axis] - taps + 1
    total = x.narrow(axis, 0, n) if isinstance(weights, int) else x.narrow(axis, 0, n) * weights[0]
    for shift in range(1, taps):
        part = x.narrow(axis, shift, n)
        total = total + part if isinstance(weights, int) else total.add(part, alpha=weights[shift])
    return total


def _box(x: Tensor, sizes: Sequence[int]) -> Tensor:
    for axis, k in enumerate(sizes, start=x.ndim - len(sizes)):
        if k > 1:
            x = _along(x, axis, k)
    return x


def _classes_first(label: Tensor, num_classes: int, sizes: Sequence[int], padding: str, ignore: int | None) -> Tensor:
    """The padded label as an integer mask per class ``(B, K, *padded)``; ``ignore`` and the outside are no class."""
    nothing = num_classes
    integer = torch.uint8 if num_classes < 255 else torch.int16
    index = label.to(integer) if ignore is None else torch.where(label == ignore, nothing, label).to(integer)
    value = {"replicate": None, "background": 0}.get(padding, nothing)
    padded = pad(index, sizes, value).unsqueeze(1)
    total = torch.uint8 if math.prod(sizes) <= 255 else torch.int16 if math.prod(sizes) <= 32767 else torch.int32
    classes = torch.arange(num_classes, dtype=integer, device=label.device)
    return (padded == classes.view(1, -1, *[1] * len(sizes))).to(total)


def outer_voxels(label: Tensor, kernel_size: int | Sequence[int] = 3, ignore: int | None = None) -> Tensor:
    """Voxels whose window holds more than one label: ``max(window) != min(window)``, borders replicated.

    Args:
        label: class numbers ``(B, *spatial)``.
        kernel_size: odd window, one number or one per axis.
        ignore: label value that counts as no label.

    Returns:
        bool ``(B, *spatial)``.

    Example:
        >>> outer_voxels(torch.tensor([[0, 0, 0, 1, 1]]))
        tensor([[False, False,  True,  True, False]])
    """
    sizes = window(kernel_size, label.ndim - 1)
    if label.is_floating_point() or label.dtype == torch.bool:
        label = label.to(torch.int32)
    low = high = label
    if ignore is not None:
        limits = torch.iinfo(label.dtype)
        low = torch.where(label == ignore, limits.max, label)
        high = torch.where(label == ignore, limits.min, label)
    return _extreme(low, sizes, torch.minimum) < _extreme(high, sizes, torch.maximum)


def _extreme(label: Tensor, sizes: Sequence[int], of_two: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    label = pad(label, sizes, None)
    for axis, k in enumerate(sizes, start=1):
        n = label.shape[axis] - k + 1
        label = functools.reduce(of_two, (label.narrow(axis, shift, n) for shift in range(k)))
    return label


def _gaussian_weights(sizes: Sequence[int], sigma: float | Sequence[float]) -> list[list[float]]:
    sigmas = per_axis(sigma, len(sizes), "sigma")
    if any(not s > 0 for s in sigmas):
        raise ValueError(f"sigma: expected positive numbers, got {sigma!r}.")
    if all(k == 1 for k in sizes):
        raise ValueError("kernel_size: expected more than 1 along some axis, for a neighbour to the gaussian prior.")
    rows = [
        [math.exp(-0.5 * (j / s) ** 2) for j in range(-(k // 2), k // 2 + 1)]
        for k, s in zip(sizes, sigmas, strict=True)
    ]
    return [[w / sum(row) for w in row] for row in rows]


def _centre_half(mass: Tensor, centre: Tensor, weights: list[list[float]], everywhere: bool) -> Tensor:
    """Half the voxel's own label, half the Gaussian mean of its neighbours' labels, the centre left out."""
    for axis, row in enumerate(weights, start=mass.ndim - len(weights)):
        if len(row) > 1:
            mass = _along(mass, axis, row)
    own = math.prod([row[len(row) // 2] for row in weights])
    neighbors = mass - own * centre
    if everywhere:
        return 0.5 * centre + neighbors / (2.0 * (1.0 - own))
    known = neighbors.sum(1, keepdim=True)
    return torch.where(known > 1e-12, 0.5 * centre + 0.5 * neighbors / known.clamp(min=1e-12), centre)


def _vote(counts: Tensor, kernel_ops: str) -> Tensor:
    """The label number that the counts elect."""
    if kernel_ops == "mode":
        return counts.argmax(1)
    if kernel_ops == "median":
        below = counts.cumsum(1)
        return (2 * below >= below[:, -1:]).to(torch.uint8).argmax(1)
    present = (counts > 0).to(torch.uint8)
    if kernel_ops == "min":
        return present.argmax(1)
    return counts.shape[1] - 1 - present.flip(1).argmax(1)


def _image_guided(
    mass: Tensor, image: Tensor, sizes: Sequence[int], padding: str, squared: bool, dtype: torch.dtype
) -> Tensor:
    """Proportions in which a neighbour counts the more, the more its intensity resembles the centre's."""
    axes = len(sizes)
    shape = image.shape[-axes:]
    padded = pad(image.to(dtype), sizes, None if padding == "replicate" else 0.0)
    inside = pad(torch.ones_like(image[:, :1], dtype=dtype), sizes, 0.0) if padding == "valid" else None
    total = torch.zeros((mass.shape[0], mass.shape[1], *shape), dtype=dtype, device=mass.device)
    norm = torch.zeros_like(total[:, :1])
    for offset in itertools.product(*(range(k) for k in sizes)):
        at: tuple[Any, ...] = (..., *(slice(o, o + n) for o, n in zip(offset, shape, strict=True)))
        difference = padded[at] - image
        distance = (difference * difference if squared else difference.abs()).mean(1, keepdim=True)
        weight = torch.exp(-distance)
        if inside is not None:
            weight = weight * inside[at]
        neighbor = mass[at].to(dtype)
        total += weight * neighbor
        norm += weight if padding == "zeros" else weight * neighbor.sum(1, keepdim=True)
    return total / norm.clamp(min=1e-12)


def label_proportions(
    label: Tensor,
    num_classes: int,
    kernel_ops: str = "mean",
    kernel_size: int | Sequence[int] = 3,
    sigma: float | Sequence[float] = 1.0,
    padding: str = "replicate",
    image: Tensor | None = None,
    ignore: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The class distribution tau that the labels around a voxel suggest for it.

    ``mean`` is the share of each class in the window; ``gaussian`` the kernel of SVLS: half the voxel's own label,
    half the Gaussian mean of its neighbours (so the centre weighs exactly 1/2 for every sigma); ``mode`` the commonest
    label, the lowest of them in a tie; ``image_proportions_l1`` and ``_l2`` weight each neighbour i of the centre c by
    ``exp(-|I_i - I_c|)`` or ``exp(-(I_i - I_c)^2)``, averaged over the image's channels. ``median``, ``max`` and
    ``min`` act on the label *numbers*, so they depend on how the classes are numbered; the others do not.

    Args:
        label: class numbers ``(B, *spatial)``, or soft or one-hot labels ``(B, K, *spatial)`` in floating point.
        num_classes: K.
        kernel_ops: one of :data:`KERNEL_OPS`.
        kernel_size: odd window in voxels, one number or one per axis (thick slices: ``(3, 3, 1)``).
        sigma: of the gaussian prior, in voxels, one number or one per axis.
        padding: what lies outside the image: ``"replicate"`` repeats the border (default), ``"valid"`` averages over
            the voxels inside only, ``"background"`` counts it as class 0 with image value 0 (the NACL authors' code),
            ``"zeros"`` as no class, so that tau does not sum to 1 there (MONAI's ``NACLLoss``).
        image: ``(B, C, *spatial)``, read by the image-guided priors only.
        ignore: label value that counts as no class: the shares are of the known voxels.
        dtype: of the result.

    Returns:
        tau ``(B, K, *spatial)``, without gradient.

    Raises:
        ValueError: unknown ``kernel_ops`` or ``padding``, an even or non-positive window, a missing image.

    Source: Murugesan et al., "Trust your neighbours: Penalty-based constraints for model calibration", MICCAI 2023
    (https://arxiv.org/abs/2303.06268); the gaussian kernel: Islam and Glocker, "Spatially varying label smoothing",
    IPMI 2021 (https://arxiv.org/abs/2104.05788).

    Example:
        >>> label_proportions(torch.tensor([[0, 0, 0, 1]]), num_classes=2)[0, 1]
        tensor([0.0000, 0.0000, 0.3333, 0.6667])
    """
    one_of("kernel_ops", kernel_ops, KERNEL_OPS)
    one_of("padding", padding, PADDINGS)
    soft = label.ndim > 2 and label.is_floating_point() and label.shape[1] == num_classes
    axes = label.ndim - (2 if soft else 1)
    sizes = window(kernel_size, axes)
    guided = kernel_ops in IMAGE_GUIDED
    if guided:
        if image is None:
            raise ValueError(f"kernel_ops={kernel_ops!r} weights neighbours by the image: call the loss with image=….")
        if image.shape[0] != label.shape[0] or image.shape[2:] != label.shape[-axes:]:
            raise ValueError(f"image: expected the grid of the label {tuple(label.shape)}, got {tuple(image.shape)}.")
        eager = label.device.type == "cpu" and label.numel() > 0 and not torch.compiler.is_compiling()
        if eager and not soft and dtype == torch.float32 and num_classes < 255 and ignore in (None, num_classes):
            squared = kernel_ops.endswith("l2")
            return image_guided_proportions(label, image, num_classes, sizes, padding, squared)

    if soft:
        mass = pad(label.to(dtype), sizes, None if padding == "replicate" else 0.0)
        if padding == "background":
            mass[:, 0] = pad(label[:, 0].to(dtype), sizes, 1.0)
    else:
        mass = _classes_first(label, num_classes, sizes, padding, ignore)
    if guided:
        assert image is not None
        return _image_guided(mass, image, sizes, padding, kernel_ops.endswith("l2"), dtype)

    complete = padding == "zeros" or (padding != "valid" and ignore is None)
    if kernel_ops == "gaussian":
        mass = mass.to(dtype)
        centre = mass[middle(label.shape[-axes:], sizes)]
        return _centre_half(mass, centre, _gaussian_weights(sizes, sigma), complete)
    counts = _box(mass, sizes)
    if kernel_ops != "mean":
        chosen = _vote(counts, kernel_ops).unsqueeze(1)
        return torch.zeros(counts.shape, dtype=dtype, device=counts.device).scatter_(1, chosen, 1.0)
    known = math.prod(sizes) if complete else counts.sum(1, keepdim=True, dtype=dtype).clamp(min=1e-12)
    return counts.to(dtype) / known
