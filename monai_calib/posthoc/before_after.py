"""Evaluated folders of a network as trained and with each correction, from one pass over the cases."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_calib.files import atomic_folder
from monai_calib.labels import top_class
from monai_calib.metrics.evaluated_writer import EvaluatedWriter
from monai_calib.metrics.evaluation import CaseEvaluation, mean_without_nan
from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.metric import Metric
from monai_calib.metrics.overlap import dice_coefficients, mean_dice
from monai_calib.metrics.protocols import Protocol
from monai_calib.posthoc.base import Calibrator
from monai_calib.posthoc.stream import LogitCase

__all__ = ["AS_TRAINED", "evaluate_corrections"]

AS_TRAINED = "as_trained"
LABELS_CHANGED = Metric("labels_changed", "labels_changed", "all", label="voxels with another label", direction=-1)


def evaluate_corrections(
    calibrators: Mapping[str, Calibrator],
    cases: Iterable[LogitCase],
    folder: str | os.PathLike[str],
    *,
    num_classes: int,
    protocols: Sequence[str | Mapping[str, Any] | Protocol] = ("paper", "recommended"),
    classes: Sequence[str] | None = None,
    ignore_index: int | None = None,
    runs: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Path]:
    """Measure the network as trained and with each correction, and write an evaluated folder of each.

    They are ``folder/as_trained/eval`` and ``folder/<name>/eval``, for ``python -m monai_calib report folder``. All
    measure the same voxels: regions are drawn from the labels predicted before the correction.

    Args:
        calibrators: fitted corrections by the name that their folder gets.
        cases: a list, or a :class:`~.stream.LogitStream`. Cases of the fit flatter what was fitted on them.
        folder: where to write.
        num_classes: channels of the logits.
        protocols: see :class:`~monai_calib.metrics.protocols.Protocol`.
        classes: names of the channels.
        ignore_index: label of voxels that count nowhere.
        runs: what the evaluation of each name says of its run.

    Returns: the evaluated folders by name, ``as_trained`` first.
    Raises: ``ValueError`` for no case, nothing being written; as
        :meth:`~monai_calib.metrics.evaluation.CaseEvaluation.measure`, naming the case.

    Example:
        >>> import tempfile
        >>> from monai_calib.metrics.evaluated import read_evaluated
        >>> from monai_calib.posthoc import TemperatureScaling
        >>> cool = TemperatureScaling(2)
        >>> cool.set_temperature(4.0)
        >>> case = LogitCase("a", torch.tensor([[3.0, 3.0], [0.0, 0.0]]), torch.tensor([1, 0]))
        >>> whole = [Protocol("whole", ["all"], ["ece"])]
        >>> with tempfile.TemporaryDirectory() as to:
        ...     folders = evaluate_corrections({"cool": cool}, [case], to, num_classes=2, protocols=whole)
        ...     [round(read_evaluated(eval).summary["ece_all_15bins_macro"], 3) for eval in folders.values()]
        [0.453, 0.179]
    """
    evaluation = CaseEvaluation(num_classes, protocols, classes, from_logits=True, ignore_index=ignore_index)
    names = [AS_TRAINED, *calibrators]
    folders = {name: Path(folder, name, "eval") for name in names}
    with ExitStack() as stack:
        evaluated = {
            name: _Evaluated(evaluation, stack.enter_context(atomic_folder(path)), (runs or {}).get(name, {}))
            for name, path in folders.items()
        }
        seen = 0
        for case in cases:
            seen += 1
            image = None if case.image is None else case.image[None]
            for name, of in evaluated.items():
                of.add(case, calibrators[name].apply(case.logits[None], image)[0] if name in calibrators else None)
        if not seen:
            raise ValueError("no case to evaluate on: the loader is empty")
        for of in evaluated.values():
            of.close()
    return folders


class _Evaluated:
    """One folder being written."""

    def __init__(self, evaluation: CaseEvaluation, folder: Path, run: Mapping[str, Any]) -> None:
        self.evaluation = evaluation
        self.writer = EvaluatedWriter(
            folder,
            evaluation.classes,
            evaluation.protocols,
            [*evaluation.metrics.values(), mean_dice(evaluation.classes), LABELS_CHANGED],
            run,
        )
        self.pooled: dict[str, CalibrationHistogram] = {}
        self.rows: dict[str, list[list[float]]] = {}

    def add(self, case: LogitCase, corrected: Tensor | None) -> None:
        label = case.label if case.ignored is None else case.label.masked_fill(case.ignored, case.ignore_index or 0)
        logits = case.logits if corrected is None else corrected
        try:
            values, histograms = self.evaluation.measure(
                logits, label, case.spacing, case.data, case.logits, case.raters
            )
        except ValueError as error:
            raise ValueError(f"case {case.name}: {error}") from error
        counts = torch.ones_like(label, dtype=torch.bool) if case.ignored is None else ~case.ignored
        predicted = top_class(logits)
        values["mean_dice"] = dice_coefficients(predicted, case.label, len(logits), counts)
        if corrected is not None:
            changed = (predicted != top_class(case.logits)) & counts
            values["labels_changed"] = [float(changed.sum()) / max(1, int(counts.sum()))]
        for region, histogram in histograms.items():
            self.pooled.setdefault(region, histogram.empty_like()).merge(histogram)
        for name, row in values.items():
            self.rows.setdefault(name, []).append(row)
        self.writer.add(case.name, values, histograms, case.subject, case.spacing)

    def close(self) -> None:
        summary = self.evaluation.summarize(self.rows, self.pooled)
        for name in {"mean_dice", "labels_changed"} & self.rows.keys():
            summary[name] = mean_without_nan([mean_without_nan(row) for row in self.rows[name]])
        self.writer.close(summary, list(self.evaluation.summary_metrics.values()))
