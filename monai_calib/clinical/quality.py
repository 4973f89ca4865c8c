"""Reasons why a person should look at a case, and a threshold that misses no more failures than stated."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_calib.words import counted

from .conformal import TooFewSubjectsWarning, subject_quantile

__all__ = ["QUALITY_FORMAT", "QualityThreshold", "least_dice", "reasons_to_check"]

QUALITY_FORMAT = "monai_calib/quality/1"


@dataclass(frozen=True)
class QualityThreshold:
    """Smallest confidence that needs no look, set on validation so that few failed cases pass it.

    **Guarantee.** Call a case failed if its true Dice is below ``failed_below``. If the subjects of validation and the
    next one are exchangeable, then of the next subject who has a failed case, a failed case (drawn at random among
    that subject's) passes unflagged with a probability of at most ``miss_rate``. It holds for any confidence and any
    network; a poor confidence pays with more cases to look at. It is an average over subjects and over validation
    sets, no promise for each, and says nothing of images from elsewhere.

    ``n`` subjects with a failed case can promise ``1 / (n + 1)`` at best: a miss rate of 0.1 needs 9 of them. With
    fewer the threshold is infinite, every case is to be looked at, and :attr:`possible` is false.

    Attributes:
        threshold: cases whose confidence is below it are flagged.
        failed_below: Dice below which a case has failed.
        miss_rate: largest share of failed cases that may pass.
        failed_subjects: subjects of validation with a failed case, on whom the guarantee stands.
        flagged: share of all validation cases that are flagged, and
        flagged_good: of those that had not failed: the price.

    Example:
        >>> confidence = [0.5, 0.6, 0.7, 0.8, 0.9, 0.9, 0.95]
        >>> threshold = QualityThreshold.fit(confidence, [0.3, 0.6, 0.65, 0.6, 0.8, 0.9, 0.9], miss_rate=0.25)
        >>> threshold.failed_subjects, round(threshold.threshold, 3)  # the 4th of 4: (1 - 0.25) * (4 + 1) < 4
        (4, 0.8)
        >>> threshold.flags(0.75), threshold.flags(0.85), threshold.flags(math.nan)
        (True, False, True)
    """

    threshold: float
    failed_below: float
    miss_rate: float
    failed_subjects: int
    flagged: float = math.nan
    flagged_good: float = math.nan

    def __post_init__(self) -> None:
        numbers = (self.threshold, self.failed_below, self.miss_rate, self.flagged, self.flagged_good)
        fits = (
            all(type(number) in (int, float) for number in numbers)
            and type(self.failed_subjects) is int
            and self.failed_subjects >= 0
            and not math.isnan(self.threshold)
            and 0 < self.failed_below <= 1
            and 0 < self.miss_rate < 1
        )
        if not fits:
            raise ValueError(
                "quality threshold: expected a number as threshold, failed_below above 0 and at most 1, miss_rate "
                f"between 0 and 1 and a number of subjects, got {vars(self)!s:.300}"
            )

    @property
    def possible(self) -> bool:
        """Whether there were enough failed subjects for the miss rate."""
        return math.isfinite(self.threshold)

    @classmethod
    def fit(
        cls,
        confidence: ArrayLike,
        dice: ArrayLike,
        subjects: Sequence[Hashable] | None = None,
        failed_below: float = 0.7,
        miss_rate: float = 0.1,
    ) -> QualityThreshold:
        """Set the threshold from validation cases.

        With shares ``1 / (n + 1)`` for each of the ``n`` subjects with a failed case, divided among their failed cases,
        it is just above the smallest confidence up to which the shares add up to ``1 - miss_rate``. For several
        structures give the least expected and the least true Dice of each case, see :func:`least_dice`: a case has then
        failed if one of its structures has.

        Args:
            confidence: ``(n,)``, larger is surer. NaN (nothing was predicted) is flagged whatever the threshold.
            dice: true Dice ``(n,)``; a case with NaN (the structure is in no label) says nothing and is left out.
            subjects: whose each case is; each its own by default.
            failed_below: Dice below which a case has failed.
            miss_rate: largest share of failed cases that may pass, between 0 and 1.

        Raises: ``ValueError`` for lengths that differ, settings out of range, or no case with a true Dice.
        Warns: :class:`TooFewSubjectsWarning` where too few subjects have a failed case.
        Source: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005 (conformal prediction); Lee,
            Barber and Willett, 2023, https://arxiv.org/abs/2306.06342, of several cases a subject.
        """
        sure, true, whose = paired(confidence, dice, subjects)
        cls(math.inf, failed_below, miss_rate, 0)  # refuses settings out of range
        known, failed = ~np.isnan(true), true < failed_below
        if not known.any():
            raise ValueError(f"dice: expected a case with a true Dice, got none in {len(true)}")
        of_subject: dict[Hashable, list[float]] = {}
        for i in np.flatnonzero(failed):
            of_subject.setdefault(whose[i], []).append(float(sure[i]))
        n = len(of_subject)
        threshold = math.nextafter(subject_quantile(list(of_subject.values()), 1 - miss_rate), math.inf)
        flagged = sure < threshold
        good = known & ~failed
        made = cls(
            threshold,
            failed_below,
            miss_rate,
            n,
            float(flagged[known].mean()),
            float(flagged[good].mean()) if good.any() else math.nan,
        )
        if not made.possible:
            warnings.warn(f"{made.impossible()} Add subjects or raise miss_rate", TooFewSubjectsWarning, stacklevel=2)
        return made

    def flags(self, confidence: float) -> bool:
        """Whether a case of this confidence should be looked at; one without (NaN) should."""
        return not confidence >= self.threshold

    def impossible(self) -> str:
        """Say why every case is flagged.

        Example:
            >>> QualityThreshold(math.inf, 0.7, 0.1, 2).impossible()
            '2 validation subjects with a Dice below 0.7, a miss rate of 0.1 needs 9: every case is to be looked at.'
        """
        return (
            f"{counted(self.failed_subjects, 'validation subject')} with a Dice below {self.failed_below:g}, a miss "
            f"rate of {self.miss_rate:g} needs {math.ceil(1 / self.miss_rate - 1 - 1e-9)}: every case is to be looked "
            "at."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; an infinite threshold and NaN are null."""
        fields = {name: value if math.isfinite(value) else None for name, value in vars(self).items()}
        return {"format": QUALITY_FORMAT, **fields}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> QualityThreshold:
        """Read what :meth:`to_json` wrote. Raises ``ValueError`` for another format.

        Example:
            >>> kept = QualityThreshold(0.8, 0.7, 0.1, 12)
            >>> QualityThreshold.from_json(kept.to_json()).threshold
            0.8
        """
        if not isinstance(data, Mapping) or data.get("format") != QUALITY_FORMAT:
            found = data.get("format") if isinstance(data, Mapping) else type(data).__name__
            raise ValueError(f"format: expected {QUALITY_FORMAT!r}, got {found!r}. Fit the threshold again.")
        absent = {"threshold": math.inf, "flagged": math.nan, "flagged_good": math.nan}
        try:
            fields: dict[str, Any] = {
                name: absent[name] if value is None else value for name, value in data.items() if name != "format"
            }
            return cls(**fields)
        except KeyError as error:
            raise ValueError(f"quality threshold: expected a number as {error}. Fit the threshold again.") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"{error}. Fit the threshold again.") from error


def paired(
    confidence: ArrayLike, dice: ArrayLike, subjects: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[Hashable]]:
    """Confidence (minus infinity where there is none), true Dice and subject of each case, by default its own.

    Raises: ``ValueError`` for lengths that differ.
    """
    sure, true = np.asarray(confidence, dtype=np.float64), np.asarray(dice, dtype=np.float64)
    whose: list[Hashable] = list(range(true.size)) if subjects is None else list(subjects)
    if sure.ndim != 1 or sure.shape != true.shape or len(whose) != len(true):
        raise ValueError(
            f"confidence, dice and subjects: expected one value a case, got {sure.shape}, {true.shape} and {len(whose)}"
        )
    return np.where(np.isnan(sure), -np.inf, sure), true, whose


def least_dice(dice: Sequence[float]) -> float:
    """The least Dice of a case's structures, those without one (NaN) left out; NaN if none has one.

    Example:
        >>> least_dice([0.9, math.nan, 0.6]), least_dice([math.nan])
        (0.6, nan)
    """
    return min((score for score in dice if not math.isnan(score)), default=math.nan)


def reasons_to_check(
    dice: Mapping[str, float],
    volumes: Mapping[str, Mapping[str, float]],
    lowest_dice: float | QualityThreshold = 0.7,
    widest_interval: float = 0.5,
) -> list[str]:
    """List why a case should be checked; empty if nothing speaks for it.

    Args:
        dice: expected Dice of each structure.
        volumes: of each structure ``ml``, ``low_ml``, ``high_ml`` and ``label_ml``.
        lowest_dice: smallest expected Dice that needs no look; or a threshold that was set on validation with the least
            expected Dice of each case, which then also flags a case in which nothing is found.
        widest_interval: largest ``(high - low) / expected`` volume that needs no look.

    Example:
        >>> volumes = {"tumour": {"ml": 2.0, "low_ml": 1.0, "high_ml": 3.0, "label_ml": 2.1}}
        >>> reasons_to_check({"tumour": 0.9}, volumes)
        ['tumour: 1.00 ... 3.00 ml, too wide an interval']
    """
    reasons = []
    if not isinstance(lowest_dice, QualityThreshold):
        lowest = lowest_dice
    elif lowest_dice.possible:
        lowest = lowest_dice.threshold
        if math.isnan(least_dice(list(dice.values()))):
            reasons.append("nothing is found in this case")
    else:  # said once, not of each structure
        lowest = -math.inf
        reasons.append(lowest_dice.impossible())
    for name, score in dice.items():
        if score < lowest:
            reasons.append(f"{name}: expected Dice {score:.2f}, below {lowest:.2f}")
    for name, volume in volumes.items():
        if volume["label_ml"] == 0:
            if volume["high_ml"] > 0 and not math.isnan(dice.get(name, 0.0)):
                reasons.append(f"{name}: not found, though {volume['ml']:.2g} ml are expected")
        elif volume["high_ml"] - volume["low_ml"] > widest_interval * volume["ml"]:
            reasons.append(f"{name}: {volume['low_ml']:.2f} ... {volume['high_ml']:.2f} ml, too wide an interval")
    return reasons
