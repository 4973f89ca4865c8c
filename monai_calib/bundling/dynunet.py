"""Kernels, strides and filters of a DynUNet, from the patch and the voxel size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["dynunet_plan"]


def dynunet_plan(
    patch_size: Sequence[int], spacing: Sequence[float], channels: Sequence[int], dims: int
) -> dict[str, Any]:
    """Kernels and strides of a DynUNet in the manner of nnU-Net.

    An axis is halved while at least 4 voxels remain and its voxels are at most twice as long as the shortest; until
    then its kernels span one voxel. The number of filters doubles with each level up to nnU-Net's bounds, and all
    outputs but the coarsest are supervised.

    Args:
        patch_size: voxels of a patch along each axis.
        spacing: mm of a voxel along each axis.
        channels: whose first is the number of filters of the first level.
        dims: 2 or 3.

    Source: Isensee et al., Nature Methods 18:203-211 (2021)

    Example:
        >>> plan = dynunet_plan([64, 64, 16], [1.0, 1.0, 3.0], [32], dims=3)
        >>> plan["dynunet_strides"]
        [[1, 1, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2], [2, 2, 1]]
        >>> plan["dynunet_kernels"][:3], plan["dynunet_filters"], plan["dynunet_heads"]
        ([[3, 3, 1], [3, 3, 3], [3, 3, 3]], [32, 64, 128, 256, 320], 2)
    """
    size, length = list(patch_size), list(spacing)
    kernels, strides = [], [[1] * dims]
    while True:
        near = [mm <= 2 * min(length) for mm in length]
        kernels.append([3 if is_near else 1 for is_near in near])
        stride = [2 if is_near and n % 2 == 0 and n >= 8 else 1 for is_near, n in zip(near, size, strict=True)]
        if max(stride) == 1:
            break
        strides.append(stride)
        size = [n // step for n, step in zip(size, stride, strict=True)]
        length = [mm * step for mm, step in zip(length, stride, strict=True)]
    most = 512 if dims == 2 else 320
    return {
        "dynunet_kernels": kernels,
        "dynunet_strides": strides,
        "dynunet_upsampling": strides[1:],
        "dynunet_filters": [min(channels[0] * 2**level, most) for level in range(len(strides))],
        "dynunet_heads": max(0, len(strides) - 3),
    }
