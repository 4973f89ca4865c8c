"""A magnetic-resonance-like image of an anatomy: tissue contrast, partial volume, bias field, Rician noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .anatomy import Anatomy
from .fields import gaussian_field

__all__ = ["take_image"]


def take_image(
    rng: np.random.Generator, anatomy: Anatomy, spacing: Sequence[float], noise: float = 0.08
) -> NDArray[np.int16]:
    """Draw an image of an anatomy.

    A voxel's tissue fractions are its label probabilities: a rater who sees half a voxel of tissue says "tissue"
    half of the time. With ``mu_k`` the brightness of tissue ``k``, ``b`` a smooth bias field and ``n_1, n_2``
    independent standard normal noise, the image is a scanner's magnitude

    ``I = gain * | b * sum_k p_k mu_k + noise * (n_1 + i n_2) |``.

    The background is textured and holds a dark cavity; the two parts differ little, so that mostly their place
    tells them apart. The gain differs by a factor of up to 30 between subjects, as between real scanners.

    Args:
        rng: source of randomness.
        anatomy: what to take an image of, ``(X, Y, Z)``.
        spacing: voxel size in mm.
        noise: standard deviation of the noise; the shape is about 1 bright and its surroundings about 0.45.

    Returns:
        int16 image ``(X, Y, Z)``.

    Example:
        >>> from monai_calib.datasets.phantom.anatomy import draw_anatomy
        >>> anatomy = draw_anatomy(np.random.default_rng(0), (18, 25, 18), (2.0, 2.0, 2.0))
        >>> take_image(np.random.default_rng(1), anatomy, (2.0, 2.0, 2.0)).dtype
        dtype('int16')
    """
    shape = anatomy.cavity.shape
    surroundings = 0.45 + 0.08 * gaussian_field(rng, shape, spacing, 3.0)
    surroundings += (0.15 - surroundings) * anatomy.cavity
    anterior, posterior = rng.normal(1.0, 0.04), rng.normal(0.88, 0.04)
    tissue = np.stack([surroundings, np.full(shape, anterior), np.full(shape, posterior)], axis=-1)
    signal = (anatomy.posterior * tissue).sum(-1) * np.exp(0.12 * gaussian_field(rng, shape, spacing, 18.0))
    magnitude = np.hypot(signal + noise * rng.standard_normal(shape), noise * rng.standard_normal(shape))
    gain = np.exp(rng.uniform(np.log(200.0), np.log(6000.0)))
    return np.clip(np.rint(gain * magnitude), 0, np.iinfo(np.int16).max).astype(np.int16)
