"""Evaluated folders of a network as trained and with each correction, from one pass over the cases."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_calib.files import atomic_folder
from monai_calib.labels import top_class
from monai_calib.metrics.evaluated_writer import EvaluatedWriter
from monai_calib.metrics.evaluation import CaseEvaluation
from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.inputs import Activation
from monai_calib.metrics.metric import Metric, mean_without_nan
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
    protocols: Sequence[str | Mapping[str, Any] | Protocol] | None = None,
    classes: Sequence[str] | None = None,
    ignore_index: int | None = None,
    runs: Mapping[str, Mapping[str, Any]] | None = None,
    activation: Activation = "softmax",
) -> dict[str, Path]:
    """Measure the network as trained and with each correction, and write an evaluated folder of each.

    They are ``folder/as_trained/eval`` and ``folder/<name>/eval``, for ``python -m monai_calib report folder``. All
    measure the same voxels: regions are drawn from the labels predicted before the correction.

    Args:
        calibrators: fitted corrections by the name that their folder gets.
        cases: a list, or a :class:`~.stream.LogitStream`. Cases of the fit flatter what was fitted on them.
        folder: where to write.
        num_classes: channels of the logits.
        protocols: see :class:`~monai_calib.metrics.evaluation.CaseEvaluation`.
        classes: names of the channels.
        ignore_index: label of voxels that count nowhere.
        runs: what the evaluation of each name says of its run.
        activation: ``"sigmoid"`` where cases are those of a :class:`~.sigmoid.SigmoidStream`, whose channels are
            ``classes``, and calibrators :class:`~.sigmoid.PerChannel`.

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
    evaluation = CaseEvaluation(num_classes, protocols, classes, True, activation, ignore_index)
    names = [AS_TRAINED, *calibrators]
    folders = {name: Path(folder, name, "eval") for name in names}
    with ExitStack() as stack:
        evaluated = {
            name: _Evaluated(evaluation, stack.enter_context(atomic_folder(path)), (runs or {}).get(name, {}))
            for name, path in folders.items()
        }
        seen = 0
        for problems in _together(cases, num_classes if activation == "sigmoid" else 1):
            seen += 1
            logits = _logits(problems) if activation == "sigmoid" else problems[0].logits
            image = None if problems[0].image is None else problems[0].image[None]
            for name, of in evaluated.items():
                of.add(
                    problems, logits, calibrators[name].apply(logits[None], image)[0] if name in calibrators else None
                )
        if not seen:
            raise ValueError("no case to evaluate on: the loader is empty")
        for of in evaluated.values():
            of.close()
    return folders


class _Evaluated:
    """One folder being written."""

    def __init__(self, evaluation: CaseEvaluation, folder: Path, run: Mapping[str, Any]) -> None:
        self.evaluation = evaluation
        self.sigmoid = evaluation.activation == "sigmoid"
        overlap = mean_dice(["background", *evaluation.classes] if self.sigmoid else evaluation.classes)
        metrics = [*evaluation.metrics.values(), overlap, LABELS_CHANGED]
        self.writer = EvaluatedWriter(folder, evaluation.classes, evaluation.protocols, metrics, run)
        self.pooled: dict[str, CalibrationHistogram] = {}
        self.rows: dict[str, list[list[float]]] = {}

    def add(self, problems: Sequence[LogitCase], trained: Tensor, corrected: Tensor | None) -> None:
        """Add a case, from its one problem or one a sigmoid channel, with logits ``(K, *spatial)``."""
        case = problems[0]
        name = case.name.removesuffix(f", {self.evaluation.classes[0]}") if self.sigmoid else case.name
        truth = torch.stack([problem.label for problem in problems])
        ignored = torch.stack([torch.zeros_like(p.label) == 1 if p.ignored is None else p.ignored for p in problems])
        logits = trained if corrected is None else corrected
        label = truth.masked_fill(ignored, case.ignore_index or 0)
        try:
            raters = None if self.sigmoid else case.raters
            values, histograms = self.evaluation.measure(logits, label, case.spacing, case.data, trained, raters)
        except ValueError as error:
            raise ValueError(f"case {name}: {error}") from error
        counts, before, after = ~ignored.any(0), self._labels(trained), self._labels(logits)
        classes = 2 if self.sigmoid else len(logits)
        values["mean_dice"] = [
            value
            for guess, of in zip(after, truth, strict=True)
            for value in dice_coefficients(guess, of, classes, counts)
        ]
        if corrected is not None:
            changed = (before != after).any(0) & counts
            values["labels_changed"] = [float(changed.sum()) / max(1, int(counts.sum()))]
        for region, histogram in histograms.items():
            self.pooled.setdefault(region, histogram.empty_like()).merge(histogram)
        for metric, row in values.items():
            self.rows.setdefault(metric, []).append(row)
        self.writer.add(name, values, histograms, case.subject, case.spacing)

    def _labels(self, logits: Tensor) -> Tensor:
        """Predicted labels, those of each problem ``(problems, *spatial)``."""
        return logits > 0 if self.sigmoid else top_class(logits)[None]

    def close(self) -> None:
        summary = self.evaluation.summarize(self.rows, self.pooled)
        for name in {"mean_dice", "labels_changed"} & self.rows.keys():
            summary[name] = mean_without_nan([mean_without_nan(row) for row in self.rows[name]])
        self.writer.close(summary, list(self.evaluation.summary_metrics.values()))


def _logits(channels: Sequence[LogitCase]) -> Tensor:
    """Logits ``(K, *spatial)`` of sigmoid channels, from those of their two classes."""
    return torch.stack([channel.logits[1] - channel.logits[0] for channel in channels])


def _together(cases: Iterable[LogitCase], count: int) -> Iterator[list[LogitCase]]:
    """The problems of each case, which follow one another."""
    problems: list[LogitCase] = []
    for case in cases:
        problems.append(case)
        if len(problems) == count:
            yield problems
            problems = []
    if problems:
        raise ValueError(
            f"case {problems[0].name}: expected its {count} sigmoid channels, got {len(problems)}. Pass a SigmoidStream"
        )
