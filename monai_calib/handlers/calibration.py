"""Calibration of every case, in every region of the protocols, while an evaluator runs."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.metrics.metric import MetricUsage, reinit__is_reduced
from monai.handlers import from_engine

from monai_calib.handlers.case_metric import CaseMetric
from monai_calib.handlers.cases import Case
from monai_calib.handlers.ranks import broadcast, gather_lists, rank, world_size
from monai_calib.labels import as_plain_tensor
from monai_calib.metrics.case_table import CaseTable
from monai_calib.metrics.evaluated_writer import EvaluatedWriter
from monai_calib.metrics.evaluation import CaseEvaluation
from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.inputs import Activation
from monai_calib.metrics.metric import Metric, mean_without_nan
from monai_calib.metrics.protocols import Protocol, measure
from monai_calib.metrics.regions import Region
from monai_calib.words import counted

__all__ = ["CalibrationHandler"]

_log = logging.getLogger(__name__)


class CalibrationHandler(CaseMetric):
    """Measures calibration of each case by one or more protocols and reports it per case, per data set, per region.

    One histogram a region and case; cases are averaged (``macro``) and their histograms added (``micro``). Metrics go
    as floats into ``engine.state.metrics``, rows (cases x classes) into ``engine.state.metric_details`` for MONAI's
    ``MetricsSaver``. With ``output_dir`` the run ends with an evaluated folder there (see
    :mod:`monai_calib.metrics.evaluated`): ``calibration.json`` with every metric of every case, those of other handlers
    of the same engine included, and ``calibration.npz`` with the histograms. These are written case by case; memory
    keeps a few kilobytes a case. To have everything that is written in a run whole or absent, previews and tables
    included, list an :class:`~monai_calib.handlers.EvaluatedFolder` last.

    The prediction must be the probabilities **before** they are turned into labels: copy ``pred`` to ``prob`` after
    the softmax. Argmaxed or unnormalised values, NaN and labels out of range end in an error that names the case. A
    case without any voxel in a region has no value there: it is left out of the mean, counted, and named in the log
    and in ``calibration.json``.

    As a key metric, an error must fall: give the evaluator ``metric_cmp_fn=lower_is_better`` and ``CheckpointSaver``
    ``key_metric_negative_sign=True``, or the worst model is kept.

    Args:
        num_classes: channels of the prediction, background included.
        protocols: names (``"paper"``, ``"by_region"``), mappings with the arguments of
            :class:`~monai_calib.metrics.protocols.Protocol`, or protocols; ``paper`` and ``by_region``, or for
            sigmoid ``by_region_sigmoid``, if not given.
        output_transform: takes the engine's output to ``(prediction, label)``, lists of channel-first tensors or
            batches; ``from_engine(["prob", "label"])`` by default. Labels are indices, one-hot or soft.
        output_dir: the evaluated folder, written by the first rank when the run ends.
        class_names: names of the channels; ``class 0 ...`` by default.
        run: what the file should say about the run: bundle, loss_name, seed, split ...
        from_logits: whether predictions are logits.
        activation: ``"softmax"``, or ``"sigmoid"`` for multi-label predictions (then a protocol must ask for
            class-wise metrics only, and regions are those of any class).
        ignore_index: label of voxels to leave out everywhere.
        spacing: voxel size in mm of cases without a header.
        save_details: whether to gather the rows.
        prefix: put before every reported name, for a second handler on the same engine, whose evaluated folder is
            ``output_dir/<prefix>``, without the prefix's last ``_``.
        raters_key: item of the loader's data with the class numbers of several raters ``(R, *spatial)``, as
            :class:`~monai_calib.transforms.KeepRatersd` leaves it. Where a case has it, metrics against the label are
            against their mean; the protocol ``"raters"`` asks for those of each rater. None to disregard it.
        posterior_key: item of the loader's data with the known probability of each class ``(K, *spatial)``, as
            :class:`~monai_calib.transforms.LoadPosteriord` leaves it: metrics against the label are then against it.

    Raises: ``ValueError`` for protocols that do not fit; while running, ``ValueError`` naming the case.

    Example:
        >>> from ignite.engine import Engine
        >>> probability = torch.full((1, 2, 8, 8), 0.5)
        >>> label = (torch.arange(64) % 2).reshape(1, 1, 8, 8)
        >>> evaluator = Engine(lambda engine, batch: batch)
        >>> CalibrationHandler(2, ["paper"], output_transform=lambda output: output).attach(evaluator)
        >>> evaluator.run([(probability, label)]).metrics["ece_foreground_15bins_macro"]  # never finds class 1
        0.5
    """

    def __init__(
        self,
        num_classes: int,
        protocols: Sequence[str | Mapping[str, Any] | Protocol] | None = None,
        output_transform: Callable[[Any], Any] | None = None,
        output_dir: str | os.PathLike[str] | None = None,
        class_names: Sequence[str] | None = None,
        run: Mapping[str, Any] | None = None,
        from_logits: bool = False,
        activation: Activation = "softmax",
        ignore_index: int | None = None,
        spacing: Sequence[float] | None = None,
        save_details: bool = True,
        prefix: str = "",
        raters_key: str | None = "raters",
        posterior_key: str | None = None,
    ) -> None:
        self.raters_key = raters_key
        self.posterior_key = posterior_key
        known = posterior_key is not None
        self.evaluation = CaseEvaluation(
            num_classes, protocols, class_names, from_logits, activation, ignore_index, posterior=known
        )
        self.protocols = self.evaluation.protocols
        self.class_names = self.evaluation.classes
        self.regions = self.evaluation.regions
        self.num_classes = num_classes
        self.run = dict(run or {})
        self.output_dir = None if output_dir is None else Path(output_dir, prefix.rstrip("_"))
        self.summary_metrics = self.evaluation.summary_metrics
        self._writer: EvaluatedWriter | None = None
        transform = output_transform or from_engine(["prob", "label"])
        details = save_details or output_dir is not None
        super().__init__(list(self.evaluation.metrics.values()), transform, spacing, details, prefix, "_macro")

    def attach(self, engine: Engine, name: str | None = None, usage: str | MetricUsage | None = None) -> None:
        super().attach(engine, name, usage)
        if self.output_dir is not None:
            engine.add_event_handler(Events.COMPLETED, self._write)
            engine.add_event_handler(Events.TERMINATE, self._abort)
            engine.add_event_handler(Events.EXCEPTION_RAISED, self._abort_and_raise)

    @property
    def reported(self) -> list[str]:
        return [self.prefix + name for name in self.summary_metrics]

    @reinit__is_reduced
    def reset(self) -> None:
        super().reset()
        self._pooled = {name: self.evaluation.histogram() for name in self.regions}
        self._scores: list[dict[str, list[float]]] = []
        self._abort()

    def region_name(self, region: str | Region) -> str:
        """The name of a region, if it is measured in; ``ValueError`` otherwise."""
        name = Region.parse(region).name
        if name not in self.regions:
            raise ValueError(f"no protocol measures in {name!r}; expected one of {', '.join(self.regions)}")
        return name

    def pooled(self, region: str | Region) -> CalibrationHistogram:
        """The histogram of a region over all cases: of all ranks once the epoch is over, until then of this rank."""
        name = self.region_name(region)
        if self._of_all_ranks:
            return CalibrationHistogram.from_state(self._of_all_ranks["pooled"][name])
        return self._pooled[name]

    def measure(self, case: Case) -> dict[str, list[float]]:
        raters, posterior = (
            None if key is None or case.data.get(key) is None else as_plain_tensor(case.data[key])
            for key in (self.raters_key, self.posterior_key)
        )
        try:
            values, histograms = self.evaluation.measure(
                case.prediction, case.label, case.spacing, case.data, raters=raters, posterior=posterior
            )
        except ValueError as error:
            raise ValueError(f"case {case.name}: {error}") from error
        for name, histogram in histograms.items():
            self._pooled[name].merge(histogram)
        if self.save_details:
            self._scores.append({name: histogram.sums.scores.tolist() for name, histogram in histograms.items()})
        if self.output_dir is not None:
            subject = case.data.get("subject", "")
            self._open().add(case.name, values, histograms, str(subject if subject is not None else ""), case.spacing)
        return values

    def compute(self) -> dict[str, float]:
        """Metrics over the cases of all ranks under their reported names; NaN where no case has any voxel."""
        computed = super().compute()
        scores = gather_lists(self._scores) if self.save_details else []
        pooled = {name: self._over_all_ranks(name, scores) for name in self._pooled}
        self._of_all_ranks["pooled"] = {name: histogram.state_dict() for name, histogram in pooled.items()}
        self._of_all_ranks["scores"] = scores
        computed |= {
            f"{self.prefix}{name}_micro": mean_without_nan(measure(metric, pooled[metric.region or ""]))
            for name, metric in self.evaluation.from_histograms.items()
        }
        return {name: computed[name] for name in self.reported}

    def completed(self, engine: Engine, name: str = "") -> None:
        super().completed(engine, name)
        described: dict[str, Metric] = engine.state.metric_descriptions  # type: ignore[attr-defined]
        described |= {self.prefix + n: m.prefixed(self.prefix) for n, m in self.summary_metrics.items()}

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        pooled = {name: histogram.state_dict() for name, histogram in self._pooled.items()}
        return {"pooled": pooled, "scores": self._scores, "written": self._tables(), **super().state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if rank() != 0:
            return
        for name, histogram in self._pooled.items():
            histogram.load_state_dict(state_dict["pooled"][name])
        self._scores = list(state_dict["scores"])
        if self.output_dir is not None:
            for saved, (name, values) in zip(state_dict["written"], self._rows, strict=False):
                self._open().add_table(CaseTable.from_state(saved), name, values, saved["subject"], saved["spacing"])

    def _over_all_ranks(self, region: str, scores: Sequence[Mapping[str, list[float]]]) -> CalibrationHistogram:
        """The pooled histogram of all ranks; a copy, so that updates may follow."""
        pooled = CalibrationHistogram.from_state(self._pooled[region].state_dict()).all_reduce()
        if scores:  # in the order of cases, as one process adds them, so that the last digit is the same
            total = torch.zeros(2, dtype=torch.float64)
            for of_case in scores:
                total += torch.tensor(of_case[region], dtype=torch.float64)
            pooled.sums.scores = total.to(pooled.sums.scores.device)
        return pooled

    def _open(self) -> EvaluatedWriter:
        """The writer: of the first rank in its place, of others in a folder that is thrown away."""
        if self._writer is None:
            assert self.output_dir is not None
            folder = self.output_dir if rank() == 0 else Path(tempfile.mkdtemp())
            self._writer = EvaluatedWriter(folder, self.class_names, self.protocols, run=self.run)
        return self._writer

    def _abort(self, engine: Engine | None = None) -> None:
        writer, self._writer = getattr(self, "_writer", None), None
        if writer is not None:
            writer.abort()
            if rank() != 0:
                shutil.rmtree(writer.folder, ignore_errors=True)

    def _abort_and_raise(self, engine: Engine, error: BaseException) -> None:
        self._abort()
        raise error

    def _tables(self) -> list[dict[str, Any]]:
        """Progress of what is written, for a checkpoint in the middle of an epoch."""
        return [] if self._writer is None else [self._writer.state(i) for i in range(len(self._writer))]

    def _write(self, engine: Engine) -> None:
        """Write the evaluated folder; every rank takes part. At the end of the run all handlers have measured."""
        writer = self._open()
        for owner in range(1, world_size()):
            for i in range(broadcast(len(writer), owner)):
                saved = broadcast(writer.state(i) if rank() == owner else None, owner)
                if rank() == 0:
                    writer.add_table(
                        CaseTable.from_state(saved), saved["case"], saved["values"], saved["subject"], saved["spacing"]
                    )
        if rank() == 0:
            metrics = list(engine.state.metric_descriptions.values())  # type: ignore[attr-defined]
            if self.prefix:
                summary = {name: engine.state.metrics[self.prefix + name] for name in self.summary_metrics}
                described, values = [*self.summary_metrics.values()], {}
            else:
                summary = {n: v for n, v in engine.state.metrics.items() if isinstance(v, (int, float))}
                described, values = metrics, _measured_by_others(engine, self.metrics, len(writer))
                described += _described(values, {m.name for m in metrics}, self.class_names)
            self._writer = None
            writer.close(summary, [*self.metrics.values(), *described], values)
        else:
            self._abort()


def _measured_by_others(engine: Engine, own: Collection[str], cases: int) -> dict[str, list[list[float]]]:
    """Values per case of the engine's other handlers, which list them in the same order."""
    values = {}
    for name, rows in getattr(engine.state, "metric_details", {}).items():
        table = torch.as_tensor(rows, dtype=torch.float64)
        if name in own:
            continue
        if len(table) != cases:
            rows = counted(len(table), "row")
            _log.warning("%s: %s for %s, left out of the evaluated folder", name, rows, counted(cases, "case"))
            continue
        values[name] = table.reshape(cases, -1).tolist()
    return values


def _described(values: Mapping[str, list[list[float]]], known: set[str], classes: Sequence[str]) -> list[Metric]:
    """Descriptions of metrics that no handler of ours measured, such as MONAI's mean Dice."""
    described = []
    for name, rows in values.items():
        if name in known:
            continue
        width = len(rows[0]) if rows else 0
        of = classes[len(classes) - width :] if width <= len(classes) else [str(i) for i in range(width)]
        dice = "dice" in name.lower()
        described.append(
            Metric(
                name,
                "dice" if dice else name,
                per="class" if width > 1 or len(classes) == 2 else "case",
                classes=tuple(of) if width > 1 or len(classes) == 2 else (),
                label="DSC" if dice else name.replace("_", " "),
                direction=1 if dice else 0,
            )
        )
    return described
