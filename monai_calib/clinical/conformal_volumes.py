"""Intervals of volumes whose coverage is guaranteed for any network, from validation subjects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .conformal import Conformal, fewest_subjects, subject_quantile
from .truth import Truth, check_probability
from .volumes import VolumeEstimate, VolumeModel, check_spacing, expected_volume, volume_deviation, volume_differences

__all__ = ["ConformalVolumeFit", "ConformalVolumeModel"]


@dataclass(frozen=True)
class ConformalVolumeModel(VolumeModel):
    """A :class:`VolumeModel` whose intervals are as wide as the errors of validation subjects ask for.

    The score of a case is the error of its expected volume in standard deviations, ``|V - E| / s(l)``, with a length
    ``l`` chosen beforehand; the half-width is the :func:`~.conformal.subject_quantile` of the scores.

    **Guarantee.** If validation subjects and the next one are exchangeable, the true volume of a case of the next
    subject, drawn at random among its cases, lies in the interval with a probability of at least ``level``: for any
    network, calibrated or not, for any ``l``, and however neighbouring voxels or the volumes of one subject err
    together; a poor network pays with wide intervals. Subjects and not cases are counted: left and right of one person
    are one piece of evidence. It is an average over subjects and over validation sets, no promise for each; and it
    wants a correction of the probabilities that was fitted on other subjects, or has so few parameters that this does
    not matter.

    ``n`` subjects can promise ``n / (n + 1)`` at most: 95 % needs 19 of them, 90 % needs 9.

    Args:
        correlation_mm: the length ``l``.
        scores: of each validation subject, the scores of its cases.

    Raises: ``ValueError`` for an empty or negative score, or from :meth:`quantile` for a level out of reach.

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
        subjects, found = len(self.scores), subject_quantile(self.scores, level)
        if subjects < fewest_subjects(level):
            raise ValueError(
                f"a level of {level:g} needs at least {fewest_subjects(level)} validation subjects, "
                f"got {subjects}: lower it to {subjects / (subjects + 1):.3g} or below"
            )
        return found


class ConformalVolumeFit(Conformal[float]):
    """Collects the scores of validation cases for each structure's :class:`ConformalVolumeModel`.

    Args:
        num_classes: channels, background included.
        correlation_mm: length over which voxels err together; a choice made without looking at the cases. The guarantee
            holds for any; one that is near the truth keeps intervals short.
        ignore_index, class_names: as in :class:`~.conformal.Conformal`.
        level: coverage of the intervals of :meth:`apply`.

    Example:
        >>> fit = ConformalVolumeFit(2)
        >>> p = torch.full((1, 8, 8, 8), 0.5)
        >>> for subject in range(9):
        ...     fit.update(torch.cat([1 - p, p]), (torch.rand(8, 8, 8) < 0.5).long(), (1.0, 1.0, 1.0), str(subject))
        >>> 0 < fit.models()[0].quantile(0.9) < 1  # independent voxels err less than correlated ones would
        True
    """

    format = "monai_calib/conformal_volumes/1"

    def __init__(
        self,
        num_classes: int,
        correlation_mm: float = 3.0,
        ignore_index: int | None = None,
        level: float = 0.9,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(num_classes, class_names, ignore_index)
        if not (0 <= correlation_mm < math.inf and 0 < level < 1):
            raise ValueError(f"expected a length of at least 0 and a level below 1, got {correlation_mm}, {level}")
        self.correlation_mm, self.level = float(correlation_mm), float(level)
        self._possible: list[bool] = []

    def _scores_of(self, truth: Truth, spacing: Sequence[float] | None) -> Mapping[int, float]:
        sizes = check_spacing(truth.probability, spacing)
        scores = {}
        for k, error in enumerate(volume_differences(truth, sizes), 1):
            deviation = volume_deviation(truth.probability[k], sizes, self.correlation_mm)
            # A case that is sure and right has score 0, one that is sure and wrong is not covered at any width.
            scores[k] = 0.0 if error == 0 else abs(error) / deviation if deviation else math.inf
        return scores

    def fit(self) -> None:
        """Look whether the level can be promised. Warns where there are too few subjects: no interval then."""
        promised = f"an interval of its volume at {self.level:.3g}"
        for k in range(1, self.num_classes):
            self._quantile(k, self.level, promised, "its volume gets none")
        self._possible = [len(of) >= fewest_subjects(self.level) for of in self._scores[1:]]

    def apply(self, probability: torch.Tensor, spacing: Sequence[float] | None = None) -> list[VolumeEstimate]:
        """Expected volumes with their intervals; from 0 to infinity where nothing can be promised.

        Raises: ``RuntimeError`` before a fit, ``ValueError`` for values that are no probabilities.
        """
        if not self._possible:
            raise RuntimeError("no intervals yet: call fit() after update()")
        sizes = check_spacing(probability, spacing)
        models = [
            ConformalVolumeModel(self.correlation_mm, scores=list(of_class.values()))
            if possible
            else VolumeModel(self.correlation_mm)
            for of_class, possible in zip(self._scores[1:], self._possible, strict=True)
        ]
        estimates = expected_volume(check_probability(probability, self.num_classes), sizes, models, self.level)
        return [
            estimate if possible else estimate._replace(low_ml=0.0, high_ml=math.inf)
            for estimate, possible in zip(estimates, self._possible, strict=True)
        ]

    def _settings(self) -> dict[str, Any]:
        return {"correlation_mm": self.correlation_mm, "level": self.level}

    def models(self) -> list[ConformalVolumeModel]:
        """One model a structure. Raises ``ValueError`` if no case was added."""
        rows = [list(of_class.values()) for of_class in self._scores[1:]]
        return [ConformalVolumeModel(self.correlation_mm, scores=scores) for scores in rows]
