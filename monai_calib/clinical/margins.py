"""A margin in millimetres around each predicted structure that covers the true one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from monai_calib.labels import top_class
from monai_calib.words import counted

from .conformal import ConformalShare, fewest_subjects
from .truth import Truth, check_probability
from .volumes import check_spacing

__all__ = ["ConformalMargin", "Margin", "covering_distance", "within"]

_ROUNDING = 1e-6  # a voxel at exactly the margin is inside, whatever the rounding of spacing times steps


class Margin(NamedTuple):
    """A structure's margin in mm, infinite where none exists, from ``subjects`` that hold it, of which ``unfound``
    have a case in which nothing of it was predicted; ``needed`` subjects are the fewest for the promise."""

    mm: float
    subjects: int
    unfound: int
    needed: int

    @property
    def possible(self) -> bool:
        """Whether there is a margin that keeps the promise."""
        return self.mm < math.inf

    def in_words(self) -> str:
        """The margin, or why there is none.

        Example:
            >>> Margin(2.5, 20, 0, 9).in_words(), Margin(math.inf, 5, 0, 9).in_words()
            ('2.5 mm', 'no margin: held by 5 validation subjects, the promise needs 9')
        """
        if self.possible:
            return f"{self.mm:.3g} mm"
        if self.subjects < self.needed:
            held = counted(self.subjects, "validation subject")
            return f"no margin: held by {held}, the promise needs {self.needed}"
        return f"no margin: nothing of it was found in {self.unfound} of {self.subjects} validation subjects"


class ConformalMargin(ConformalShare):
    """Margins that cover the true structures: a share of their voxels, in a share of subjects.

    Score of a case and structure is the smallest distance ``r`` such that the predicted structure (where its
    probability is the largest), dilated by ``r`` mm, holds at least ``share`` of the structure's true voxels; it is
    infinite where nothing is predicted. The margin is the :func:`~.conformal.subject_quantile` of the scores.

    **Guarantee.** If validation subjects that hold the structure and the next one are exchangeable, the predicted
    structure dilated by the margin covers at least ``share`` of the true one in a case of the next subject, with a
    probability of at least ``level``, for any network. Each structure for itself. Distances are Euclidean, between
    centres of voxels. Cases without the structure do not count, so nothing is said about one that is predicted and not
    there.

    Args:
        num_classes, class_names, ignore_index: as in :class:`~.conformal.Conformal`.
        share: least share of the true voxels to be covered.
        level: least share of subjects in which that holds.

    Source: Mossina and Friedrich, Conformal prediction for image segmentation using morphological prediction sets,
        MICCAI 2025; https://arxiv.org/abs/2503.05618

    Example:
        >>> margins = ConformalMargin(2, share=1.0, level=0.75)
        >>> p = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 0.0])
        >>> for subject, first in enumerate([3, 2, 1]):  # the truth reaches 0, 1 and 2 voxels of 2 mm further
        ...     label = torch.tensor([int(first <= i <= 3) for i in range(6)])
        ...     margins.update(torch.stack([1 - p, p]), label, [2.0], str(subject))
        >>> margins.fit()
        >>> margins.margins[0].mm, margins.apply(torch.stack([1 - p, p]), [2.0])[0].tolist()
        (4.0, [False, True, True, True, True, True])
    """

    format = "monai_calib/conformal_margin/1"
    margins: Sequence[Margin] = ()

    def _scores_of(self, truth: Truth, spacing: Sequence[float] | None) -> Mapping[int, float]:
        sizes = check_spacing(truth.probability, spacing)
        predicted = top_class(truth.probability).numpy(force=True)
        label = truth.label.numpy(force=True)
        present = (k for k in range(1, self.num_classes) if (label == k).any())
        return {k: covering_distance(predicted == k, label == k, sizes, self.share) for k in present}

    def fit(self) -> None:
        """Find the margins. Warns where there are too few subjects: there is no margin then."""
        promised = f"a margin over {self.share:.3g} of it in {self.level:.3g} of subjects"
        needed = fewest_subjects(self.level)
        margins = []
        for k in range(1, self.num_classes):
            mm = self._quantile(k, self.level, promised, "it gets no margin")
            rows = self._scores[k].values()
            margins.append(Margin(mm, len(rows), sum(math.inf in row for row in rows), needed))
        self.margins = margins

    def apply(self, probability: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """Predicted structures with their margins, bool ``(K - 1, *spatial)``; everything where there is no margin.

        Raises: ``RuntimeError`` before a fit, ``ValueError`` for values that are no probabilities.
        """
        if not self.margins:
            raise RuntimeError("no margins yet: call fit() after update()")
        probability = check_probability(probability, self.num_classes)
        sizes = check_spacing(probability, spacing)
        predicted = top_class(probability).numpy(force=True)
        masks = [within(predicted == k, margin.mm, sizes) for k, margin in enumerate(self.margins, 1)]
        return torch.from_numpy(np.stack(masks)).to(probability.device)


def covering_distance(
    predicted: NDArray[np.bool_], reference: NDArray[np.bool_], spacing: Sequence[float], share: float
) -> float:
    """Smallest distance in mm by which the prediction must grow to cover a share of the reference's voxels.

    Args:
        predicted, reference: masks ``(*spatial)``; the reference is not empty.
        spacing: voxel size in mm.
        share: above 0, up to 1.

    Example:
        >>> reference = np.array([True, True, True, True])
        >>> [covering_distance(np.array([False, False, False, True]), reference, [1.5], s) for s in (0.25, 0.5, 1.0)]
        [0.0, 1.5, 4.5]
    """
    total = int(reference.sum())
    needed = math.ceil(share * total * (1 - 1e-12))
    if int((reference & predicted).sum()) >= needed:
        return 0.0
    if not predicted.any():
        return math.inf
    # The nearest predicted voxel of any voxel in the box lies in it, so distances there are those of the whole image.
    box = _box(predicted | reference, (0,) * predicted.ndim)
    distances = distance_transform_edt(~predicted[box], sampling=spacing)[reference[box]]
    return float(np.partition(distances, needed - 1)[needed - 1])


def within(mask: NDArray[np.bool_], mm: float, spacing: Sequence[float]) -> NDArray[np.bool_]:
    """Voxels at most so many millimetres from a mask, which is dilated by a ball; all of them for infinitely many.

    Example:
        >>> within(np.array([False, False, True]), 1.0, [1.0]).tolist()
        [False, True, True]
    """
    if mm == math.inf:
        return np.ones_like(mask)
    grown = mask.copy()
    if mm > 0 and mask.any():
        limit = mm * (1 + _ROUNDING)
        box = _box(mask, tuple(int(limit / step) for step in spacing))
        grown[box] = distance_transform_edt(~mask[box], sampling=spacing) <= limit
    return grown


def _box(mask: NDArray[np.bool_], beyond: Sequence[int]) -> tuple[slice, ...]:
    """The box of a mask that is not empty, so many voxels larger along each axis."""
    box = []
    for axis, more in enumerate(beyond):
        there = np.flatnonzero(mask.any(axis=tuple(i for i in range(mask.ndim) if i != axis)))
        box.append(slice(max(0, int(there[0]) - more), int(there[-1]) + 1 + more))
    return tuple(box)
