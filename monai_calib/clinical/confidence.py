"""Confidences of a case as a whole, by which cases are ordered for review: each larger the surer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from monai_calib.labels import top_class
from monai_calib.metrics.raters import dice_table
from monai_calib.metrics.regions import region_mask

from .overlap import expected_dice
from .quality import least_dice
from .truth import check_probability

__all__ = ["certainty", "confidence_scores", "pairwise_dice"]


def confidence_scores(
    probability: torch.Tensor,
    spacing: Sequence[float] | None = None,
    width: str = "2mm",
    members: torch.Tensor | None = None,
) -> dict[str, float]:
    """Confidences of a segmented case, by name.

    - ``expected_dice``: mean over structures, and ``least_expected_dice``, see
      :func:`~monai_calib.clinical.expected_dice`.
    - ``boundary_certainty``: ``1 - entropy / log K``, mean over the voxels near a predicted boundary, and
      ``predicted_certainty``: over the predicted foreground. Means, so that large structures are not less sure.
    - ``pairwise_dice`` of an ensemble's members, mean over structures.

    NaN where nothing is predicted.

    Args:
        probability: ``(K, *spatial)``.
        spacing: voxel size in mm, for a width in mm.
        width: distance from the boundary, ``"2mm"`` or ``"2vx"``.
        members: class numbers of an ensemble's members ``(M, *spatial)``.

    Source: Zenk et al., Medical Image Analysis 101, 2025; https://arxiv.org/abs/2406.03323

    Example:
        >>> p = torch.tensor([0.1, 0.9, 0.9, 0.1])
        >>> scores = confidence_scores(torch.stack([1 - p, p]), width="1vx", members=torch.tensor([[0, 1, 1, 0]] * 2))
        >>> [f"{name} {value:.3f}" for name, value in scores.items()]
        ['expected_dice 0.900', 'least_expected_dice 0.900', 'boundary_certainty 0.531', 'predicted_certainty 0.531', \
'pairwise_dice 1.000']
    """
    probability = check_probability(probability)
    predicted = top_class(probability).long()
    of_structures = expected_dice(probability)
    near = region_mask(f"boundary:{width}", predicted, predicted, spacing)
    scores = {
        "expected_dice": _mean(of_structures),
        "least_expected_dice": least_dice(of_structures),
        "boundary_certainty": certainty(probability, near),
        "predicted_certainty": certainty(probability, predicted != 0),
    }
    if members is not None:
        scores["pairwise_dice"] = _mean(pairwise_dice(members, len(probability)))
    return scores


def certainty(probability: torch.Tensor, mask: torch.Tensor) -> float:
    """Mean over a mask of ``1 - H(p) / log K``: 1 where all is certain, 0 where every class is as likely.

    Args:
        probability: ``(K, *spatial)``.
        mask: bool ``(*spatial)``.

    Returns: NaN for an empty mask.

    Example:
        >>> certainty(torch.tensor([[0.5, 1.0], [0.5, 0.0]]), torch.tensor([True, True]))
        0.5
    """
    inside = probability[:, mask].double()
    if not inside.numel():
        return math.nan
    entropy = -torch.special.xlogy(inside, inside).sum(0)
    return float(1 - entropy.mean() / math.log(len(probability)))


def pairwise_dice(members: torch.Tensor, num_classes: int) -> list[float]:
    """Dice between the members of an ensemble, mean over all pairs, of each foreground class.

    A pair of which only one holds the class counts 0, one of which neither does counts nowhere.

    Args:
        members: class numbers ``(M, *spatial)``, at least two.
        num_classes: background included.

    Source: Roy et al., NeuroImage 195, 2019, of the agreement of samples as a confidence.

    Example:
        >>> pairwise_dice(torch.tensor([[0, 1, 1], [0, 0, 1], [0, 0, 0]]), 2)  # 2/3, 0 and 0
        [0.2222...]
    """
    if len(members) < 2:
        raise ValueError(f"members: expected at least two, got {len(members)}")
    table = dice_table(members, num_classes)
    table = torch.where(table.isnan(), table.transpose(1, 2), table)
    pairs = torch.triu_indices(len(members), len(members), 1)
    return [_mean(of_class[pairs[0], pairs[1]].tolist()) for of_class in table]


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
