"""Intervals of volumes whose coverage is guaranteed for any network, from validation subjects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .truth import check_truth
from .volumes import VolumeModel, volume_deviation, volume_differences

__all__ = ["ConformalVolumeFit", "ConformalVolumeModel"]


@dataclass(frozen=True)
class ConformalVolumeModel(VolumeModel):
    """A :class:`VolumeModel` whose intervals are as wide as the errors of validation subjects ask for.

    The score of a case is the error of its expected volume in standard deviations, ``|V - E| / s(l)``, with a length
    ``l`` chosen beforehand. The half-width is the smallest ``q`` for which

        ``sum_i 1 / (n + 1) * (share of the cases of subject i with score <= q) >= level``.

    **Guarantee.** If the ``n`` subjects of validation and the next one are exchangeable, the true volume of a case
    of the next subject, drawn at random among its cases, lies in the interval with a probability of at least
    ``level``: place the ``n + 1`` subjects in random order; each is as likely as any other to come last, and the
    ``level``-quantile of all their scores, each subject weighing ``1 / (n + 1)``, is not above ``q``, in which the last
    one counts as infinite. It holds for any network, calibrated or not, for any ``l``, and however neighbouring voxels
    or the volumes of one subject err together; a poor network pays with wide intervals. Subjects and not cases are
    counted: left and right of one person are one piece of evidence. It is an average over subjects and over
    validation sets, no promise for each; and it wants a correction of the probabilities that was fitted on other
    subjects, or has so few parameters that this does not matter.

    ``n`` subjects can promise ``n / (n + 1)`` at most: 95 % needs 19 of them, 90 % needs 9.

    Args:
        correlation_mm: the length ``l``.
        scores: of each validation subject, the scores of its cases.

    Raises: ``ValueError`` for an empty or negative score, or from :meth:`quantile` for a level out of reach.

    Source: Lee, Barber and Willett, Distribution-free inference with hierarchical data, 2023;
        https://arxiv.org/abs/2306.06342

    Example:
        >>> model = ConformalVolumeModel(3.0, scores=[[0.1 * i] for i in range(1, 20)])
        >>> round(model.quantile(0.95), 1), round(model.quantile(0.8), 1)  # the 19th and the 16th of 19
        (1.9, 1.6)
    """

    scores: Sequence[Sequence[float]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scores or not all(subject and min(subject) >= 0 for subject in self.scores):
            raise ValueError("scores: expected at least one subject, each with scores of at least 0; use the fit")

    def quantile(self, level: float) -> float:
        """Half the interval's width in standard deviations."""
        if not 0 < level < 1:
            raise ValueError(f"level: expected between 0 and 1, got {level}")
        subjects = len(self.scores)
        needed = level * (subjects + 1)
        # A level that is n / (n + 1) but for rounding is within reach.
        if needed > subjects * (1 + 1e-9):
            raise ValueError(
                f"a level of {level:g} needs at least {math.ceil(level / (1 - level) - 1e-9)} validation subjects, "
                f"got {subjects}: lower it to {subjects / (subjects + 1):.3g} or below"
            )
        weighted = sorted((score, 1 / len(subject)) for subject in self.scores for score in subject)
        reached = 0.0
        for score, weight in weighted:
            reached += weight
            if reached >= needed * (1 - 1e-9):
                return score
        return weighted[-1][0]


class ConformalVolumeFit:
    """Collects the scores of validation cases for each structure's :class:`ConformalVolumeModel`.

    Args:
        num_classes: channels, background included.
        correlation_mm: length over which voxels err together; a choice made without looking at the cases. The guarantee
            holds for any; one that is near the truth keeps intervals short.
        ignore_index: label of voxels that count nowhere.

    Example:
        >>> fit = ConformalVolumeFit(2)
        >>> p = torch.full((1, 8, 8, 8), 0.5)
        >>> for subject in range(9):
        ...     fit.update(torch.cat([1 - p, p]), (torch.rand(8, 8, 8) < 0.5).long(), (1.0, 1.0, 1.0), str(subject))
        >>> 0 < fit.models()[0].quantile(0.9) < 1  # independent voxels err less than correlated ones would
        True
    """

    def __init__(self, num_classes: int, correlation_mm: float = 3.0, ignore_index: int | None = None) -> None:
        if num_classes < 2 or not 0 <= correlation_mm < math.inf:
            raise ValueError(
                f"expected at least 2 classes and a length of at least 0, got {num_classes}, {correlation_mm}"
            )
        self.num_classes, self.correlation_mm = num_classes, correlation_mm
        self.ignore_index = ignore_index
        self._scores: list[dict[str, list[float]]] = [{} for _ in range(num_classes - 1)]

    def update(
        self,
        probability: torch.Tensor,
        label: torch.Tensor,
        spacing: Sequence[float],
        subject: str,
        case: str | None = None,
    ) -> None:
        """Add a case: probabilities ``(K, *spatial)``, true class numbers ``(*spatial)``, voxel size, whose it is.

        Args:
            case: how errors call it; its subject by default.

        Raises: ``ValueError`` naming the case for values that are no probabilities or no class numbers, grids or
            numbers of classes that differ; nothing is added then.
        """
        case = case or f"subject {subject}"
        truth = check_truth(probability, label, self.num_classes, self.ignore_index, case)
        for k, error in enumerate(volume_differences(truth, spacing), 1):
            deviation = volume_deviation(truth.probability[k], spacing, self.correlation_mm)
            # A case that is sure and right has score 0, one that is sure and wrong is not covered at any width.
            score = 0.0 if error == 0 else abs(error) / deviation if deviation else math.inf
            self._scores[k - 1].setdefault(subject, []).append(score)

    def models(self) -> list[ConformalVolumeModel]:
        """One model a structure. Raises ``ValueError`` if no case was added."""
        return [ConformalVolumeModel(self.correlation_mm, scores=list(rows.values())) for rows in self._scores]
