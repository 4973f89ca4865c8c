"""Statements about a case, fitted together on validation cases and made together for new ones."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike
from torch import Tensor

from monai_calib.datasets.checksums import sha256
from monai_calib.files import FileError, read_json, write_json
from monai_calib.labels import top_class
from monai_calib.words import counted

from .conformal import fewest_subjects
from .conformal_volumes import ConformalVolumeFit
from .inputs import ImageCheck, InputCheck
from .margins import ConformalMargin, Margin
from .overlap import expected_dice
from .quality import QualityThreshold, least_dice, reasons_to_check
from .truth import check_truth
from .volumes import VolumeEstimate
from .voxel_sets import ConformalSets

__all__ = [
    "CLINICAL_FORMAT",
    "CaseStatement",
    "ClinicalModel",
    "StructureStatement",
    "read_clinical_model",
    "write_clinical_model",
]

_log = logging.getLogger(__name__)

CLINICAL_FORMAT = "monai_calib/clinical/1"
UNLIKE_TRAINING = "this image does not look like the training data, so that nothing said of it is promised"


@dataclass(frozen=True)
class StructureStatement:
    """One structure of a case: its expected volume with an interval, expected Dice, and margin."""

    name: str
    volume: VolumeEstimate
    dice: float
    margin: Margin


@dataclass(frozen=True)
class CaseStatement:
    """Statement about a case.

    Attributes:
        structures: of each structure, background left out.
        margins: predicted structures with their margins, bool ``(K - 1, *spatial)``.
        sets: classes that each voxel may be of, bool ``(K, *spatial)``.
        label: predicted class numbers ``(*spatial)``.
        image: how the image compares with those of training; None where that was not asked.
        reasons: why a person should look at the case; none if nothing speaks for it.
    """

    structures: tuple[StructureStatement, ...]
    margins: Tensor
    sets: Tensor
    label: Tensor
    image: ImageCheck | None
    reasons: tuple[str, ...]

    @property
    def flag(self) -> str:
        """``"check"`` or ``"ok"``."""
        return "check" if self.reasons else "ok"


class ClinicalModel:
    """Volumes with intervals, margins, sets, a quality threshold and a check of images, of one network.

    ``update`` adds a validation case, ``update_image`` an image of training, ``fit`` settles all, ``apply`` speaks of a
    new case. What each promises is said by its class; too few subjects make a promise void, with a warning, and not the
    others.

    Args:
        class_names: of all channels, background first.
        level: share of subjects that intervals, margins and sets are for.
        share: of a structure's voxels that margins and sets cover.
        correlation_mm: see :class:`~.conformal_volumes.ConformalVolumeFit`.
        failed_below, miss_rate: see :class:`~.quality.QualityThreshold`. Where there are too few failed cases for the
            miss rate, an expected Dice below ``failed_below`` is what is flagged, without a promise.
        false_alarms: see :class:`~.inputs.InputCheck`.
        ignore_index: label of voxels that count nowhere.
        unit: of the voxel size; ``"px"`` where it is not known.

    Example:
        >>> import torch
        >>> model = ClinicalModel(["background", "tumour"], level=0.5)
        >>> p = torch.zeros(8, 8, 8)
        >>> p[2:6, 2:6, 2:6] = 0.9
        >>> for subject in range(4):
        ...     model.update(torch.stack([1 - p, p]), (p > 0).long(), (1.0, 1.0, 1.0), str(subject))
        >>> model.fit()
        >>> said = model.apply(torch.stack([1 - p, p]), (1.0, 1.0, 1.0))
        >>> said.flag, round(said.structures[0].dice, 2), said.structures[0].margin.in_words()
        ('ok', 0.95, '0 mm')
    """

    def __init__(
        self,
        class_names: Sequence[str],
        level: float = 0.9,
        share: float = 0.95,
        correlation_mm: float = 3.0,
        failed_below: float = 0.7,
        miss_rate: float = 0.1,
        false_alarms: float = 0.02,
        ignore_index: int | None = None,
        unit: str = "mm",
    ) -> None:
        self.class_names, self.ignore_index, self.unit = list(class_names), ignore_index, unit
        self.failed_below, self.miss_rate, self.false_alarms = failed_below, miss_rate, false_alarms
        classes = len(self.class_names)
        self.volumes = ConformalVolumeFit(classes, correlation_mm, ignore_index, level, class_names)
        self.margins = ConformalMargin(classes, share, level, class_names, ignore_index)
        self.sets = ConformalSets(classes, share, level, class_names, ignore_index)
        self.inputs: InputCheck | None = None
        self.quality: QualityThreshold | None = None
        self.about: dict[str, Any] = {}
        self._dice: list[tuple[float, float, str]] = []
        self._cases = 0

    @property
    def level(self) -> float:
        """Share of subjects that intervals, margins and sets are for."""
        return self.margins.level

    @property
    def share(self) -> float:
        """Share of a structure's voxels that margins and sets cover."""
        return self.margins.share

    def update(
        self,
        probability: Tensor,
        label: Any,
        spacing: Sequence[float],
        subject: str | None = None,
        case: str | None = None,
    ) -> None:
        """Add a validation case, as :meth:`~.conformal.Conformal.update`; a refused one leaves nothing behind."""
        truth = check_truth(probability, label, len(self.class_names), self.ignore_index, case)
        whose = subject or f"case {self._cases}, unnamed"
        for part in (self.volumes, self.margins, self.sets):
            part.update(probability, label, spacing, whose, case)
        predicted = top_class(truth.probability)
        true = [_dice(predicted == k, truth.label == k) for k in range(1, len(self.class_names))]
        self._dice.append((least_dice(expected_dice(probability)), least_dice(true), whose))
        self._cases += 1

    def update_image(self, statistics: ArrayLike, channels: int, subject: str | None = None) -> None:
        """Add an image that the network was trained on, by its :func:`~.inputs.image_statistics`."""
        if self.inputs is None:
            self.inputs = InputCheck(channels, false_alarms=self.false_alarms)
        self.inputs.update(statistics, subject)

    def fit(self) -> None:
        """Settle everything. Warns of each promise for which there are too few subjects."""
        if not self._dice:
            raise ValueError("no case to fit on: call update() for each validation case")
        for part in (self.volumes, self.margins, self.sets, self.inputs):
            if part is not None:
                part.fit()
        expected, true, subjects = zip(*self._dice, strict=True)
        if all(math.isnan(score) for score in true):
            raise ValueError("no structure is in any validation label: name a split whose cases hold them.")
        self.quality = QualityThreshold.fit(expected, true, subjects, self.failed_below, self.miss_rate)
        self.about = {"cases": self._cases, "subjects": len(set(subjects)), **self.about}

    def apply(
        self, probability: Tensor, spacing: Sequence[float], statistics: ArrayLike | None = None
    ) -> CaseStatement:
        """Speak of a new case.

        Args:
            probability: ``(K, *spatial)``.
            spacing: voxel size in mm.
            statistics: :func:`~.inputs.image_statistics` of its image.

        Raises: ``RuntimeError`` before a fit, ``ValueError`` for values that are no probabilities.
        """
        volumes = self.volumes.apply(probability, spacing)
        dice = expected_dice(probability)
        names = self.class_names[1:]
        image = None if self.inputs is None or statistics is None else self.inputs.apply(statistics)
        structures = tuple(
            StructureStatement(*told) for told in zip(names, volumes, dice, self.margins.margins, strict=True)
        )
        return CaseStatement(
            structures,
            self.margins.apply(probability, spacing),
            self.sets.apply(probability),
            top_class(probability),
            image,
            tuple(self._reasons(structures, image)),
        )

    def _reasons(self, structures: Sequence[StructureStatement], image: ImageCheck | None) -> list[str]:
        lowest = self.quality if self.quality is not None and self.quality.possible else self.failed_below
        dice = {one.name: one.dice for one in structures}
        volumes = {one.name: one.volume._asdict() for one in structures}
        strange = [f"{UNLIKE_TRAINING}: {'; '.join(image.reasons)}"] if image is not None and image.strange else []
        return strange + reasons_to_check(dice, volumes, lowest, math.inf)

    def in_words(self) -> list[str]:
        """Tell what the statements promise, and which cannot."""
        level, share, below = _percent(self.level), _percent(self.share), f"{self.failed_below:g}"
        subjects, needed = self.about.get("subjects", 0), fewest_subjects(self.level)
        told = [
            f"Of subjects like the {subjects} it was fitted on, at least {level} have their true volume in its "
            f"interval, at least {level} have {share} of a structure within its margin, and at least {level} have "
            f"{share} of a class's voxels in sets that hold it: each of these for itself, on average over such fits, "
            "and for no single subject."
        ]
        if subjects < needed:
            told = [
                f"No interval, margin or set is promised: {level} needs {counted(needed, 'subject')}, the fit had "
                f"{subjects}."
            ]
        if self.quality is not None and self.quality.possible:
            told.append(
                f"Of failed cases (a Dice below {below}) at most {_percent(self.miss_rate)} pass without a flag."
            )
        elif self.quality is not None:
            told.append(
                f"How many failed cases (a Dice below {below}) pass without a flag is not promised: "
                f"{self.quality.impossible().partition(':')[0]}. An expected Dice below {below} is flagged."
            )
        if self.inputs is not None and self.inputs.seen >= self.inputs.fewest:
            told.append(
                f"Of images like the {self.inputs.seen} it was fitted on (one a subject) at most "
                f"{_percent(self.false_alarms)} are called strange."
            )
        elif self.inputs is not None:
            told.append(
                f"No image is called strange: a false-alarm rate of {_percent(self.false_alarms)} needs "
                f"{counted(self.inputs.fewest, 'subject')}, the fit had {self.inputs.seen}."
            )
        return told

    def to_json(self) -> dict[str, Any]:
        """Plain values of all that was fitted, without names of subjects or cases. ``RuntimeError`` before a fit."""
        if self.quality is None:
            raise RuntimeError("nothing fitted yet: call fit() after update()")
        return {
            "format": CLINICAL_FORMAT,
            "about": self.about,
            "class_names": self.class_names,
            "unit": self.unit,
            "failed_below": self.failed_below,
            "miss_rate": self.miss_rate,
            "false_alarms": self.false_alarms,
            "quality": self.quality.to_json(),
            "volumes": self.volumes.to_json(),
            "margins": self.margins.to_json(),
            "sets": self.sets.to_json(),
            "inputs": None if self.inputs is None else self.inputs.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClinicalModel:
        """Read what :meth:`to_json` wrote. Raises ``ValueError`` for another format."""
        if data.get("format") != CLINICAL_FORMAT:
            raise ValueError(f"format: expected {CLINICAL_FORMAT!r}, got {data.get('format')!r}")
        settings = {name: data[name] for name in ("unit", "failed_below", "miss_rate", "false_alarms")}
        made = cls(data["class_names"], **settings)
        made.volumes = ConformalVolumeFit.from_json(data["volumes"])
        made.margins = ConformalMargin.from_json(data["margins"])
        made.sets = ConformalSets.from_json(data["sets"])
        made.quality = QualityThreshold.from_json(data["quality"])
        made.inputs = None if data["inputs"] is None else InputCheck.from_json(data["inputs"])
        made.about = dict(data["about"])
        return made


def read_clinical_model(
    path: str | os.PathLike[str], network: str | os.PathLike[str] | None = None, command: str = ""
) -> ClinicalModel:
    """Read a fitted :class:`ClinicalModel`.

    Args:
        path: file that was written from :meth:`ClinicalModel.to_json`.
        network: file of the network that will predict; another one than the model was fitted for is refused.
        command: what writes the file; errors show it.

    Raises: :class:`~monai_calib.files.FileError` naming the file and the command that writes it.

    Example:
        >>> read_clinical_model("models/clinical.json", command="python fit.py")
        Traceback (most recent call last):
        monai_calib.files.FileError: models/clinical.json: no such file. Write it with: python fit.py
    """
    advice = f"Write it with: {command}" if command else "Fit it on validation cases."
    data = read_json(path, CLINICAL_FORMAT, advice)
    try:
        made = ClinicalModel.from_json(data)
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path}: {type(error).__name__}: {error}. {advice}") from error
    if network is not None and made.about.get("model_sha256") != sha256(Path(network)):
        raise FileError(
            f"{path}: expected what was fitted for the network that predicts, {os.fspath(network)}, got what was "
            f"fitted for a {made.about.get('model')} of another checksum. {advice}"
        )
    return made


def write_clinical_model(
    model: ClinicalModel, path: str | os.PathLike[str], network: str | os.PathLike[str], **about: Any
) -> ClinicalModel:
    """Fit a model, and write it with the network's file it belongs to.

    Args:
        model: with its cases added.
        path: file to write, in one step.
        network: file of the network that predicted the cases; its checksum is kept, its folder is not.
        about: more to be told, plain values.
    """
    model.about |= {**about, "model": os.path.basename(network), "model_sha256": sha256(Path(network))}
    model.fit()
    write_json(path, model.to_json(), None)
    cases, subjects = counted(model.about["cases"], "case"), counted(model.about["subjects"], "subject")
    _log.info("wrote %s: fitted on %s of %s", path, cases, subjects)
    for line in model.in_words():
        _log.info("%s", line)
    return model


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _dice(predicted: Tensor, true: Tensor) -> float:
    """Dice of two masks, NaN where the label has nothing of the structure."""
    size = int(true.sum())
    return 2 * int((predicted & true).sum()) / (int(predicted.sum()) + size) if size else math.nan
