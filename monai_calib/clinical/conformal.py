"""Promises that hold for any network, from the ranks of validation subjects' scores: the interface they share."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from monai_calib.words import counted

from .truth import Truth, check_truth

__all__ = [
    "Conformal",
    "ConformalShare",
    "TooFewSubjectsWarning",
    "conformal_from_json",
    "fewest_subjects",
    "subject_quantile",
]

Score = TypeVar("Score")
Made = TypeVar("Made", bound="Conformal[Any]")
_ROUNDING = 1e-9  # a level that is n / (n + 1) but for rounding is within reach


class TooFewSubjectsWarning(UserWarning):
    """Warning that a promise cannot be given with the subjects there are."""


def subject_quantile(scores: Sequence[Sequence[float]], level: float) -> float:
    """Score that a case of the next subject stays within with a probability of at least ``level``.

    The smallest ``q`` for which ``sum_i 1 / (n + 1) * (share of the cases of subject i with score <= q) >= level``,
    and infinite where there is none.

    **Guarantee.** If the ``n`` subjects and the next one are exchangeable, the score of a case of the next subject,
    drawn at random among its cases, is at most ``q`` with a probability of at least ``level``: place the ``n + 1``
    subjects in random order; each is as likely as any other to come last, and the ``level``-quantile of all their
    scores, each subject weighing ``1 / (n + 1)``, is not above ``q``, in which the last one counts as infinite.
    However the cases of one subject resemble each other does not matter. It is an average over subjects and over
    validation sets, no promise for each. ``n`` subjects can promise ``n / (n + 1)`` at most.

    Args:
        scores: of each subject, the scores of its cases, infinite ones included.
        level: share of subjects, between 0 and 1.

    Source: Lee, Barber and Willett, Distribution-free inference with hierarchical data, 2023;
        https://arxiv.org/abs/2306.06342

    Example:
        >>> subject_quantile([[1.0], [2.0, 3.0], [4.0]], 0.375), subject_quantile([[1.0]] * 8, 0.9)
        (2.0, inf)
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected between 0 and 1, got {level}")
    needed = level * (len(scores) + 1) * (1 - _ROUNDING)
    reached = 0.0
    for score, weight in sorted((score, 1 / len(subject)) for subject in scores for score in subject):
        reached += weight
        if reached >= needed:
            return score
    return math.inf


def fewest_subjects(level: float) -> int:
    """Number of subjects without which ``level`` cannot be promised.

    Example:
        >>> fewest_subjects(0.9), fewest_subjects(0.95)
        (9, 19)
    """
    return math.ceil(level / (1 - level) - _ROUNDING)


class Conformal(ABC, Generic[Score]):
    """A promise about the next subject's cases, whatever the network, kept by the scores of validation subjects.

    ``update`` adds a validation case, ``fit`` finds what the promise asks for, ``apply`` makes it for a new case,
    ``to_json`` and ``from_json`` (:func:`conformal_from_json` for any kind) carry it to where it is used. A case has a
    score for each class that the promise speaks of. What must be exchangeable are subjects: cases of one subject share
    its weight, and files hold scores, no names. Labels are needed by :meth:`update` alone.

    Args:
        num_classes: channels, background included.
        class_names: for messages and files.
        ignore_index: label of voxels that count nowhere.
    """

    format: ClassVar[str]
    exclusive: ClassVar[bool] = True
    """Whether probabilities must add up to 1 over the channels."""

    def __init__(
        self, num_classes: int, class_names: Sequence[str] | None = None, ignore_index: int | None = None
    ) -> None:
        if num_classes < 2:
            raise ValueError(f"num_classes: expected at least 2, got {num_classes}")
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.class_names = list(class_names or (f"class {k}" for k in range(num_classes)))
        if len(self.class_names) != num_classes:
            raise ValueError(f"class_names: expected {num_classes}, got {self.class_names}")
        self._scores: list[dict[str, list[Score]]] = [{} for _ in range(num_classes)]
        self._added = 0

    def update(
        self,
        probability: Tensor,
        label: Any,
        spacing: Sequence[float] | None = None,
        subject: str | None = None,
        case: str | None = None,
    ) -> None:
        """Add a validation case.

        Args:
            probability: ``(K, *spatial)``, as the network will give them for new cases.
            label: true class numbers ``(*spatial)`` or ``(1, *spatial)``, of any type that holds whole numbers.
            spacing: voxel size in mm, for promises in mm and ml.
            subject: whose case it is; without one the case counts as somebody of its own.
            case: how errors call it; its subject, or the label's file if it has one, by default.

        Raises: ``ValueError`` naming the case for values that are no probabilities or no class numbers, grids or
            numbers of classes that differ; nothing is added then.
        """
        if isinstance(spacing, str):
            raise ValueError(f"spacing: expected a voxel size, got {spacing!r}. Name the subject as subject=.")
        called = case or (None if subject is None else f"subject {subject}")
        truth = check_truth(probability, label, self.num_classes, self.ignore_index, called, self.exclusive)
        scores = self._scores_of(truth, spacing)
        whose = f"case {self._added}, unnamed" if subject is None else f"subject {subject}"
        self._added += 1
        for k, score in scores.items():
            self._scores[k].setdefault(whose, []).append(score)

    @abstractmethod
    def _scores_of(self, truth: Truth, spacing: Sequence[float] | None) -> Mapping[int, Score]:
        """Scores of a case by class number; a class that the promise does not speak of in this case has none."""

    @abstractmethod
    def fit(self) -> None:
        """Find what the promise asks for. Warns where there are too few subjects; nothing is promised then."""

    @abstractmethod
    def apply(self, probability: Tensor, spacing: Sequence[float] | None = None) -> Any:
        """Make the promise for a new case: probabilities ``(K, *spatial)``, voxel size in mm."""

    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """Arguments beside the number and names of classes."""

    def to_json(self) -> dict[str, Any]:
        """Settings and scores as plain values; infinity, which JSON does not have, as ``null``."""
        return {
            "format": self.format,
            "num_classes": self.num_classes,
            "class_names": self.class_names,
            **self._settings(),
            "scores": [_plain(of_class) for of_class in self._scores],
        }

    @classmethod
    def from_json(cls: type[Made], data: Mapping[str, Any]) -> Made:
        """Read what :meth:`to_json` wrote, fitted. Raises ``ValueError`` for another format."""
        if data.get("format") != cls.format:
            raise ValueError(f"format: expected {cls.format!r}, got {data.get('format')!r}")
        settings = {name: value for name, value in data.items() if name not in ("format", "scores")}
        made = cls(**settings)
        made._scores = [
            {str(i): [math.inf if score is None else score for score in row] for i, row in enumerate(of_class)}
            for of_class in data["scores"]
        ]
        with warnings.catch_warnings():  # told when it was fitted
            warnings.simplefilter("ignore", TooFewSubjectsWarning)
            made.fit()
        return made

    def _quantile(self, k: int, level: float, promised: str, instead: str) -> float:
        """The quantile of a class's scores, with a warning where there are too few subjects for it."""
        rows: list[list[Any]] = list(self._scores[k].values())
        if len(rows) < fewest_subjects(level):
            self._warn(k, len(rows), promised, fewest_subjects(level), instead)
        return subject_quantile(rows, level)

    def _warn(self, k: int, subjects: int, promised: str, needed: int, instead: str) -> None:
        warnings.warn(
            f"{self.class_names[k]}: held by {counted(subjects, 'validation subject')}, but {promised} cannot be "
            f"guaranteed with fewer than {needed}; {instead}. Add subjects or promise less",
            TooFewSubjectsWarning,
            stacklevel=4,
        )


class ConformalShare(Conformal[float]):
    """A promise of a share of a class's voxels, in a share of subjects.

    Args:
        num_classes, class_names, ignore_index: as in :class:`Conformal`.
        share: least share of the voxels, above 0.
        level: least share of subjects in which that holds.
    """

    def __init__(
        self,
        num_classes: int,
        share: float = 0.95,
        level: float = 0.9,
        class_names: Sequence[str] | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(num_classes, class_names, ignore_index)
        if not (0 < share <= 1 and 0 < level < 1):
            raise ValueError(f"share, level: expected above 0 and up to 1, and between 0 and 1, got {share}, {level}")
        self.share, self.level = float(share), float(level)

    def _settings(self) -> dict[str, Any]:
        return {"share": self.share, "level": self.level}


def _plain(of_class: Mapping[str, list[Any]]) -> list[list[float | None]]:
    return [[None if score == math.inf else float(score) for score in row] for row in of_class.values()]


def conformal_from_json(data: Mapping[str, Any]) -> Conformal[Any]:
    """Read any promise by the format it names.

    Raises: ``ValueError`` for a format that is none.

    Example:
        >>> conformal_from_json({"format": "a spell"})
        Traceback (most recent call last):
        ValueError: format: expected one of ..., got 'a spell'
    """
    promises: list[type[Conformal[Any]]] = [*Conformal.__subclasses__(), *ConformalShare.__subclasses__()]
    kinds = {kind.format: kind for kind in promises if kind is not ConformalShare}
    if data.get("format") not in kinds:
        raise ValueError(f"format: expected one of {', '.join(sorted(kinds))}, got {data.get('format')!r}")
    return kinds[data["format"]].from_json(data)
