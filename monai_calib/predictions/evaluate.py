"""Stored cases measured into an evaluated folder, with the overlap, distances and previews of a bundle's evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_calib.files import FileError
from monai_calib.handlers.cases import Case
from monai_calib.handlers.preview import cut_preview, save_preview
from monai_calib.handlers.surface import SurfaceHandler
from monai_calib.labels import top_class
from monai_calib.metrics.evaluated_writer import EvaluatedWriter
from monai_calib.metrics.evaluation import CaseEvaluation
from monai_calib.metrics.metric import mean_without_nan
from monai_calib.metrics.overlap import dice_coefficients, mean_dice
from monai_calib.metrics.protocols import Protocol
from monai_calib.predictions.cases import IGNORED, StoredCase, StoredCases

__all__ = ["StoredEvaluation"]


class StoredEvaluation:
    """Measures stored cases one by one and writes ``calibration.json``, ``calibration.npz`` and ``previews/``.

    Args:
        folder: the evaluated folder, made by :func:`monai_calib.files.atomic_folder`.
        cases: where images for the previews come from.
        classes: names of the classes, background first.
        protocols: names or :class:`~monai_calib.metrics.protocols.Protocol`.
        run: what the file should say of what was evaluated.
    """

    def __init__(
        self,
        folder: Path,
        cases: StoredCases,
        classes: Sequence[str],
        protocols: Sequence[str | Protocol],
        run: Mapping[str, Any],
    ) -> None:
        ignore = None if cases.settings.classes.ignore is None else IGNORED
        self.folder = folder
        self.cases = cases
        self.evaluation = CaseEvaluation(len(classes), protocols, classes, ignore_index=ignore)
        self.surface = SurfaceHandler(
            len(classes), class_names=classes, ignore_index=ignore, save_details=False, unit=cases.unit
        )
        self.overlap = {"mean_dice": mean_dice(classes), **self.surface.metrics}
        self._pooled = {name: self.evaluation.histogram() for name in self.evaluation.regions}
        self._rows: dict[str, list[list[float]]] = {}
        metrics = [*self.evaluation.metrics.values(), *self.overlap.values()]
        self._writer = EvaluatedWriter(folder, classes, self.evaluation.protocols, metrics, run)

    def add(self, case: StoredCase) -> None:
        """Measure one case and write it; ``FileError`` naming the case for what cannot be measured."""
        predicted = top_class(case.probabilities)
        try:
            values, histograms = self.evaluation.measure(case.probabilities, case.label, case.spacing)
        except ValueError as error:
            raise FileError(f"case {case.name} ({case.found.file}): {error}") from error
        outside = None if case.ignore_index is None else case.label == case.ignore_index
        counted = None if outside is None else ~outside
        values["mean_dice"] = dice_coefficients(predicted, case.label, len(case.probabilities), counted)
        values |= self.surface.measure(Case(case.name, predicted[None], case.label[None], case.spacing, {}))
        for name, value in values.items():
            self._rows.setdefault(name, []).append(value)
        for name, histogram in histograms.items():
            self._pooled[name].merge(histogram)
        self._writer.add(case.name, values, histograms, case.subject, case.spacing)
        self._preview(case, predicted, outside)

    def close(self) -> dict[str, float]:
        """Write what is known at the end; returns the summary."""
        summary = self.evaluation.summarize(self._rows, self._pooled)
        for name in self.overlap:
            summary[name] = mean_without_nan([mean_without_nan(row) for row in self._rows[name]])
        self._writer.close(summary, list(self.evaluation.summary_metrics.values()))
        return summary

    def _preview(self, case: StoredCase, predicted: Tensor, outside: Tensor | None) -> None:
        image = self.cases.image(case.name, case.label.shape)
        grey = 1 - case.probabilities[0] if image is None else torch.from_numpy(image.astype("float32"))
        label = case.label if outside is None else case.label.masked_fill(outside, 0)
        shown = Case(case.name, case.probabilities, label[None], case.spacing, {})
        save_preview(self.folder / "previews" / f"{case.name}.npz", cut_preview(shown, grey[None], predicted[None]))
