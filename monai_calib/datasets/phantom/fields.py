"""Smooth Gaussian random fields with exactly known mean, variance and distribution in every voxel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["gaussian_field"]


def gaussian_field(
    rng: np.random.Generator, shape: Sequence[int], spacing: Sequence[float], smoothness: float
) -> NDArray[np.float64]:
    """White noise smoothed by a Gaussian, standard normal in every voxel.

    The smoothing is a product with ``exp(-2 pi^2 s^2 |f|^2)`` in the frequency domain, thus periodic: the field is
    stationary up to the border of the volume, and its variance, the mean of the squared filter, is known exactly
    and divided out.

    Args:
        rng: source of randomness.
        shape: voxels per axis.
        spacing: voxel size in mm per axis.
        smoothness: standard deviation ``s`` of the smoothing kernel, in mm; 0 leaves white noise.

    Returns:
        float64 array of ``shape``; each voxel is N(0, 1), neighbours are correlated by ``exp(-distance^2 / (4 s^2))``.

    Example:
        >>> field = gaussian_field(np.random.default_rng(0), (8, 8, 8), (1, 1, 1), smoothness=2.0)
        >>> field.shape
        (8, 8, 8)
    """
    noise = rng.standard_normal(tuple(shape))
    response = np.ones((1,) * len(shape))
    for axis, (size, step) in enumerate(zip(shape, spacing, strict=True)):
        last = axis == len(shape) - 1
        frequency = (np.fft.rfftfreq if last else np.fft.fftfreq)(size, step)
        along = [1] * len(shape)
        along[axis] = -1
        response = response * np.exp(-2.0 * (np.pi * smoothness * frequency) ** 2).reshape(along)
    # A real transform keeps half of the last axis: all columns but the first and an even size's last count twice.
    count = np.full(response.shape[-1], 2.0)
    count[0] = 1.0
    if shape[-1] % 2 == 0:
        count[-1] = 1.0
    variance = float((response**2 * count).sum()) / noise.size
    smooth = np.fft.irfftn(np.fft.rfftn(noise) * response, s=tuple(shape), axes=tuple(range(len(shape))))
    return smooth / np.sqrt(variance)
