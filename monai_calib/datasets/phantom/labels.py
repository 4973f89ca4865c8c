"""Labels drawn from a known probability in each voxel, in plausible patches rather than in speckle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from .fields import gaussian_field

__all__ = ["POSTERIOR_UNIT", "draw_labels", "quantise_posterior"]

# Probabilities are kept as whole multiples of 2^-15: they fit uint16, add up to exactly 1 in any floating-point
# format of at least 16 bits of mantissa, and a NIfTI scale factor of 2^-15 brings them back without rounding.
POSTERIOR_UNIT = 2.0**-15


def quantise_posterior(posterior: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Round probabilities to multiples of :data:`POSTERIOR_UNIT` that add up to exactly 1.

    Args:
        posterior: ``(..., K)``, non-negative, adding up to 1 over the last axis.

    Returns:
        uint16 counts of ``(..., K)`` adding up to 2^15; the likeliest class takes up what rounding left over.

    Example:
        >>> quantise_posterior(np.array([1 / 3, 2 / 3, 0.0]))
        array([10923, 21845,     0], dtype=uint16)
    """
    total = round(1.0 / POSTERIOR_UNIT)
    counts = np.rint(np.asarray(posterior) * total).astype(np.int32)
    likeliest = np.expand_dims(counts.argmax(-1), -1)
    left_over = total - counts.sum(-1, keepdims=True, dtype=np.int32)
    np.put_along_axis(counts, likeliest, np.take_along_axis(counts, likeliest, -1) + left_over, -1)
    return counts.astype(np.uint16)


def draw_labels(
    rng: np.random.Generator, posterior: NDArray[np.uint16], spacing: Sequence[float], coherence: float = 2.0
) -> NDArray[np.uint8]:
    """Draw one label per voxel, each exactly from its own probabilities, neighbours together (a Gaussian copula).

    Independent draws would make speckle. Instead a smooth field ``g``, standard normal in every voxel, is turned
    into ``u = Phi(g)``, uniform on (0, 1) in every voxel, and the label is the class in whose quantile ``u`` falls:

    ``y = min{k : u < p_0 + ... + p_k}``, hence ``P(y = k) = p_k`` exactly, whatever the correlation.

    Only the joint distribution of several voxels knows of the smoothness: the boundary moves in and out in patches,
    as a rater's would.

    Args:
        rng: source of randomness; it must not be the one that made the image, which may not know of the draw.
        posterior: ``(X, Y, Z, K)`` from :func:`quantise_posterior`.
        spacing: voxel size in mm.
        coherence: smoothness of ``g`` in mm; 0 draws every voxel on its own.

    Example:
        >>> certain = np.zeros((4, 4, 4, 2), dtype=np.uint16)
        >>> certain[..., 1] = 2**15
        >>> int(draw_labels(np.random.default_rng(0), certain, (1, 1, 1)).min())
        1
    """
    uniform = ndtr(gaussian_field(rng, posterior.shape[:-1], spacing, coherence))
    edges = np.cumsum(posterior[..., :-1], axis=-1, dtype=np.int64) * POSTERIOR_UNIT
    return (uniform[..., None] >= edges).sum(-1).astype(np.uint8)
