"""Volume of the foreground: expected from the probabilities and counted from the labels, against the truth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["volume_errors"]

COUNT, HITS, CONFIDENCE = range(3)


def volume_errors(
    bins: Mapping[tuple[str, int], NDArray[np.float64]], num_classes: int
) -> dict[str, NDArray[np.float64]]:
    """Errors of a case's foreground volume relative to the true one, from histograms alone.

    The summed probability of a class over the whole volume is its expected volume, in voxels; the voxels of the
    predicted foreground are the volume counted from labels. ``expected_volume_bias = (E - V) / V``,
    ``expected_volume_error`` its size, and ``argmax_volume_error`` that of the counted volume; NaN without true
    foreground.

    Args:
        bins: of a run, see :class:`~.runs.Run`. Without the region ``all`` there is no error, without ``predicted``
            none of the counted volume.
        num_classes: of which the first is the background. Multi-label runs, which have none, have no errors.

    Returns: ``(cases,)`` for each name.

    Example:
        >>> whole = np.zeros((1, 3, 3, 1))  # one case, rows background, foreground, top label; one bin
        >>> whole[0, 1, :, 0] = 100, 20, 25  # 100 voxels, 20 of them foreground, 25 expected
        >>> {name: value.tolist() for name, value in volume_errors({("all", 1): whole}, 2).items()}
        {'expected_volume_bias': [0.25], 'expected_volume_error': [0.25]}
    """
    by_region = {region: table for (region, _), table in bins.items()}
    if "all" not in by_region or by_region["all"].shape[1] == num_classes:
        return {}
    foreground = by_region["all"][:, 1:num_classes].sum(axis=(1, 3))
    true = np.where(foreground[:, HITS] > 0, foreground[:, HITS], np.nan)
    bias = (foreground[:, CONFIDENCE] - true) / true
    errors = {"expected_volume_bias": bias, "expected_volume_error": np.abs(bias)}
    if "predicted" in by_region:
        counted = by_region["predicted"][:, 0, COUNT].sum(axis=1)
        errors["argmax_volume_error"] = np.abs(counted - true) / true
    return errors
