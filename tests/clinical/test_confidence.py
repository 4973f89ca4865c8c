"""Confidences of a case as a whole, by their formulas."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from monai_calib.clinical import certainty, confidence_scores, expected_dice, pairwise_dice


def volume(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in (14, 12, 10)), indexing="ij")
    inside = 8 * (0.6 - sum(axis.square() for axis in axes).sqrt())
    return (torch.stack([-inside, inside, inside - 3]) + torch.randn(3, 14, 12, 10, generator=generator)).softmax(0)


def test_scores_are_those_of_their_formulas() -> None:
    probability = volume()
    p, label = probability.double().numpy(), probability.argmax(0).numpy()
    entropy = 1 + (p * np.log(p)).sum(0) / math.log(3)
    # within 2 mm of a voxel of another label, spacing 1, 1, 2
    near = np.zeros(label.shape, dtype=bool)
    for k in range(3):
        distance = distance_transform_edt(label == k, sampling=(1, 1, 2))
        near |= (label == k) & (distance <= 2)
    scores = confidence_scores(probability, (1.0, 1.0, 2.0))
    dice = expected_dice(probability)
    assert scores["expected_dice"] == pytest.approx(np.mean(dice))
    assert scores["least_expected_dice"] == min(dice)
    assert scores["boundary_certainty"] == pytest.approx(entropy[near].mean(), abs=1e-6)
    assert scores["predicted_certainty"] == pytest.approx(entropy[label != 0].mean(), abs=1e-6)
    assert "pairwise_dice" not in scores


def test_pairwise_dice_is_the_mean_over_pairs() -> None:
    members = torch.stack([volume(seed).argmax(0) for seed in range(4)])
    members[3][members[3] == 2] = 1  # one member never finds the last class
    for k, found in enumerate(pairwise_dice(members, 3), 1):
        pairs = []
        for a, b in itertools.combinations((members == k).numpy(), 2):
            pairs.append(2 * (a & b).sum() / (a.sum() + b.sum()))
        assert found == pytest.approx(np.mean(pairs))
    assert math.isnan(pairwise_dice(torch.zeros(2, 5, dtype=torch.int64), 2)[0])
    assert confidence_scores(volume(), width="2vx", members=members)["pairwise_dice"] < 1
    with pytest.raises(ValueError, match="at least two"):
        pairwise_dice(members[:1], 3)


def test_nothing_predicted_has_no_confidence() -> None:
    probability = torch.tensor([0.99, 0.01])[:, None, None].expand(2, 4, 4)
    scores = confidence_scores(probability, width="1vx")
    assert math.isnan(scores["predicted_certainty"])
    assert math.isnan(scores["boundary_certainty"])
    assert math.isnan(certainty(probability, torch.zeros(4, 4, dtype=torch.bool)))
