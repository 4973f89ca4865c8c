"""Sets of classes that each voxel may be of, so large that they seldom leave the true class out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from monai_calib.labels import top_class

from .conformal import ConformalShare
from .truth import Truth, check_probability

__all__ = ["ConformalSets", "SetThreshold"]


class SetThreshold(NamedTuple):
    """``threshold`` on a class's probability, at or above which the class is in a voxel's set, from ``subjects`` that
    hold the class; 0, which puts it into every set, where the promise asks for that or is not ``possible``."""

    threshold: float
    subjects: int
    possible: bool


class ConformalSets(ConformalShare):
    """Class-conditional sets of voxels: in a share of subjects, a share of each class's voxels have it in their set.

    Class ``k``, the background included, is in the set of a voxel where ``p_k >= t_k``, and so is the class of largest
    probability. Score of a case and class is ``-s``, with ``s`` the largest threshold that at least ``share`` of the
    class's true voxels reach; ``-t_k`` is the :func:`~.conformal.subject_quantile` of the scores.

    **Guarantee.** If validation subjects that hold class ``k`` and the next one are exchangeable, at least ``share`` of
    the true voxels of ``k`` in a case of the next subject have ``k`` in their set, with a probability of at least
    ``level``, for any network; each class for itself. The usual quantile over voxels would promise nothing: voxels of
    one subject are not exchangeable with those of the next, and a thousand of them are one piece of evidence. Of the
    two promises that subjects allow, this one speaks of most subjects; the other, of the mean over subjects, is
    :class:`~.false_negatives.FalseNegativeControl`.

    Args:
        num_classes, class_names, ignore_index: as in :class:`~.conformal.Conformal`.
        share: least share of a class's voxels whose set holds it.
        level: least share of subjects in which that holds.

    Source: sets by a threshold a class, Sadinle, Lei and Wasserman, JASA 2019, https://arxiv.org/abs/1609.00451;
        subjects as the unit as in :func:`~.conformal.subject_quantile`.

    Example:
        >>> sets = ConformalSets(2, share=0.5, level=0.6)
        >>> for subject in range(4):
        ...     p = torch.tensor([0.2 + 0.1 * subject, 0.9, 0.9])
        ...     sets.update(torch.stack([1 - p, p]), torch.tensor([0, 1, 1]), subject=str(subject))
        >>> sets.fit()  # of 4 subjects and the next, 3 must be served
        >>> [round(t.threshold, 3) for t in sets.thresholds]
        [0.6, 0.9]
        >>> sets.apply(torch.tensor([[0.7, 0.3], [0.3, 0.7]])).int().tolist()
        [[1, 0], [0, 1]]
    """

    format = "monai_calib/conformal_sets/1"
    thresholds: Sequence[SetThreshold] = ()

    def _scores_of(self, truth: Truth, spacing: Sequence[float] | None) -> Mapping[int, float]:
        counts = truth.counted
        scores = {}
        for k, p in enumerate(truth.probability):
            values = p[(truth.label == k) & counts]
            if values.numel():
                # the smallest of those that must reach the threshold
                spared = values.numel() - math.ceil(self.share * values.numel() * (1 - 1e-12))
                scores[k] = -float(values.flatten().kthvalue(spared + 1).values)
        return scores

    def fit(self) -> None:
        """Find the thresholds. Warns where there are too few subjects: the class is in every set then."""
        promised = f"sets for {self.share:.3g} of it in {self.level:.3g} of subjects"
        thresholds = []
        for k in range(self.num_classes):
            quantile = self._quantile(k, self.level, promised, "every voxel's set holds it")
            possible = quantile < math.inf
            # written so that 0 has no sign
            threshold = max(0.0, -quantile) if possible else 0.0
            thresholds.append(SetThreshold(threshold, len(self._scores[k]), possible))
        self.thresholds = thresholds

    def apply(self, probability: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """Classes that each voxel may be of, bool ``(K, *spatial)``, background included; no set is empty.

        Raises: ``RuntimeError`` before a fit, ``ValueError`` for values that are no probabilities.
        """
        if not self.thresholds:
            raise RuntimeError("no thresholds yet: call fit() after update()")
        probability = check_probability(probability, self.num_classes)
        top = top_class(probability)
        rows = [
            (p >= t.threshold) | (top == k) for k, (p, t) in enumerate(zip(probability, self.thresholds, strict=True))
        ]
        return torch.stack(rows)
