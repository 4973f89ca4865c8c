"""The Dice score to expect of a segmentation, from calibrated probabilities, without ground truth."""

from __future__ import annotations

import torch

from monai_calib.labels import top_class
from monai_calib.metrics.overlap import expected_dice_coefficients

from .truth import check_probability

__all__ = ["expected_dice"]


def expected_dice(probability: torch.Tensor) -> list[float]:
    """Expected Dice of each structure of the label map, background left out: ``2 sum_S p / (|S| + sum p)``.

    ``S`` are the voxels where the structure's probability is the largest. It is the ratio of expectations, which for
    structures of more than a few dozen independent patches differs little from the expectation of the ratio. It is as
    right as the probabilities are: an over-confident network expects too much.

    Args:
        probability: ``(K, *spatial)``.

    Returns: K - 1 numbers; NaN where nothing is predicted and less than half a voxel is expected.

    Source: of the idea, Kwon et al., Computational Statistics and Data Analysis 2020, and Li et al., MICCAI 2020.

    Example:
        >>> p = torch.tensor([0.9, 0.8, 0.1])
        >>> round(expected_dice(torch.stack([1 - p, p]))[0], 3)  # 2 * 1.7 / (2 + 1.8)
        0.895
    """
    probability = check_probability(probability).flatten(1)
    inside = probability[:, top_class(probability) != 0]
    return expected_dice_coefficients(inside, probability[1:].double().sum(1).tolist())
