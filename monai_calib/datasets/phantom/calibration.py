"""The true calibration error of a predictor, computed from the known posterior instead of from drawn labels."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["load_posterior", "posterior_distance", "true_calibration_error"]


def load_posterior(path: str | Path) -> NDArray[np.float32]:
    """Read a saved posterior as ``(K, X, Y, Z)`` float32, the layout of a network's output; sums to exactly 1.

    Raises: ``ValueError`` if the file is not a 4D volume of probabilities.
    """
    image = nib.nifti1.load(path)
    if len(image.shape) != 4:
        raise ValueError(f"{path}: expected a 4D posterior (X, Y, Z, K), got shape {image.shape}.")
    posterior = np.moveaxis(np.asanyarray(image.dataobj).astype(np.float32), -1, 0)
    if not np.array_equal(posterior.sum(0), np.ones(posterior.shape[1:], np.float32)):
        raise ValueError(f"{path}: the classes do not add up to 1; expected a file of posteriorsTr/ of the phantom.")
    return posterior


def _columns(probability: ArrayLike, posterior: ArrayLike, mask: ArrayLike | None) -> tuple:
    p, q = np.asarray(probability, dtype=np.float64), np.asarray(posterior, dtype=np.float64)
    if p.shape != q.shape or p.ndim < 2:
        raise ValueError(f"Expected probability and posterior of one shape (K, *spatial), got {p.shape} and {q.shape}.")
    p, q = p.reshape(len(p), -1), q.reshape(len(q), -1)
    if mask is not None:
        chosen = np.asarray(mask, dtype=bool).reshape(-1)
        if chosen.size != p.shape[1]:
            raise ValueError(f"Expected a mask of {p.shape[1]} voxels, got {chosen.size}.")
        p, q = p[:, chosen], q[:, chosen]
    if p.shape[1] == 0:
        raise ValueError("No voxel left to average over: the volume or the mask is empty.")
    return p, q


def true_calibration_error(
    probability: ArrayLike, posterior: ArrayLike, num_bins: int = 15, mask: ArrayLike | None = None
) -> float:
    """Expected calibration error without label noise: accuracy is replaced by its known expectation.

    With ``k_i = argmax_k p_ik`` the predicted class of voxel ``i``, ``c_i`` its predicted and ``q_{i, k_i}`` its true
    probability, and ``B_b`` the voxels whose confidence lies in bin ``b`` (``(b-1)/M < c <= b/M``),

    ``TCE = sum_b |sum_{i in B_b} (q_{i, k_i} - c_i)| / N``.

    The label is drawn from ``q_i`` without looking at the image's noise, so ``E[y_i = k_i | image, q] = q_{i, k_i}``
    for every predictor: this is the expectation of the usual gap over all labels that could have been drawn, and
    the usual ECE tends to it as cases are added. It needs no predictor to equal ``q``: the best one that sees only
    the image, ``E[q | image]``, is calibrated too. How far a predictor is from ``q`` is
    :func:`posterior_distance`.

    Args:
        probability: predictions ``(K, *spatial)``.
        posterior: the known posterior ``(K, *spatial)``, see :func:`load_posterior`. Pool cases by concatenation.
        num_bins: number ``M`` of equal bins of confidence.
        mask: voxels to count, ``(*spatial)``. It may depend on the prediction and the posterior, never on the drawn
            label: among voxels picked by their label (a "foreground" region), the label is no longer drawn
            from ``q``, and even ``q`` itself would look miscalibrated.

    Raises: ``ValueError`` on shapes that disagree, or nothing to average over.

    Example:
        >>> q = np.array([[0.8, 0.4], [0.2, 0.6]])
        >>> true_calibration_error(q, q)
        0.0
        >>> round(true_calibration_error(np.array([[0.9, 0.1], [0.1, 0.9]]), q), 3)  # (0.8 + 0.6) / 2 - 0.9
        0.2
    """
    p, q = _columns(probability, posterior, mask)
    if num_bins < 1:
        raise ValueError(f"Expected at least one bin, got num_bins={num_bins}.")
    winner = p.argmax(0)[None]
    confidence = np.take_along_axis(p, winner, 0)[0]
    gap = np.take_along_axis(q, winner, 0)[0] - confidence
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    return float(np.abs(np.bincount(bins, weights=gap, minlength=num_bins)).sum() / confidence.size)


def posterior_distance(probability: ArrayLike, posterior: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Mean total variation distance ``1/N sum_i 1/2 sum_k |p_ik - q_ik|`` to the known posterior, between 0 and 1.

    0 only for the posterior itself, voxel by voxel; calibration asks less. Arguments as in
    :func:`true_calibration_error`.

    Example:
        >>> posterior_distance(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.5, 0.0], [0.5, 1.0]]))
        0.25
    """
    p, q = _columns(probability, posterior, mask)
    return float(0.5 * np.abs(p - q).sum(0).mean())
