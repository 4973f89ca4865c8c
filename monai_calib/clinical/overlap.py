"""The Dice score to expect of a segmentation, from calibrated probabilities, without ground truth."""

from __future__ import annotations

import math

import torch

from monai_calib.labels import top_class

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
    probability = check_probability(probability)
    label = top_class(probability)
    scores = []
    for k in range(1, len(probability)):
        p, predicted = probability[k].double(), label == k
        size, expected = int(predicted.sum()), float(p.sum())
        nothing = size == 0 and expected < 0.5
        scores.append(math.nan if nothing else 2 * float(p[predicted].sum()) / (size + expected))
    return scores
