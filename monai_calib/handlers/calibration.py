"""Calibration of every case, in every region of the protocols, while an evaluator runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from ignite.metrics.metric import reinit__is_reduced
from monai.handlers import from_engine

from monai_calib.handlers.calibration_file import write_calibration_file
from monai_calib.handlers.case_metric import CaseMetric, mean_without_nan
from monai_calib.handlers.cases import Case, index_map, top_class
from monai_calib.handlers.ranks import gather_lists, rank, world_size
from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.inputs import Activation
from monai_calib.metrics.protocols import METRICS, Figure, Protocol, resolve_protocols
from monai_calib.metrics.regions import Region, RegionMasks

__all__ = ["CalibrationHandler"]


class CalibrationHandler(CaseMetric):
    """Measures calibration of each case by one or more protocols and reports it per case, per data set, per region.

    One histogram a region and case; cases are averaged (``macro``) and their histograms added (``micro``). Figures go
    as floats into ``engine.state.metrics``, rows (cases x classes) into ``engine.state.metric_details`` for MONAI's
    ``MetricsSaver``, and with ``output_dir`` everything, histograms included, into ``calibration.json``.

    The prediction must be the probabilities **before** they are turned into labels: copy ``pred`` to ``prob`` after
    the softmax. Argmaxed or unnormalised values, NaN and labels out of range end in an error that names the case. A
    case without any voxel in a region has no figure there: it is left out of the mean, counted, and named in the log
    and in ``calibration.json``.

    As a key metric, an error must fall: give the evaluator ``metric_cmp_fn=lower_is_better`` and ``CheckpointSaver``
    ``key_metric_negative_sign=True``, or the worst model is kept.

    Args:
        num_classes: channels of the prediction, background included.
        protocols: names (``"paper"``, ``"recommended"``), mappings with the arguments of
            :class:`~monai_calib.metrics.protocols.Protocol`, or protocols.
        output_transform: takes the engine's output to ``(prediction, label)``, lists of channel-first tensors or
            batches; ``from_engine(["prob", "label"])`` by default. Labels are indices or one-hot.
        output_dir: folder for ``calibration.json``, written by the first rank when the epoch ends.
        class_names: names of the channels; ``class 0 ...`` by default.
        run: what the file should say about the run: bundle, loss_name, seed, split ...
        from_logits: whether predictions are logits.
        activation: ``"softmax"``, or ``"sigmoid"`` for multi-label predictions (then a protocol must ask for
            class-wise metrics only, and regions are those of any class).
        ignore_index: label of voxels to leave out everywhere.
        spacing: voxel size in mm of cases without a header.
        save_details: whether to gather the rows.
        prefix: put before every reported name, and into the file's: for a second handler on the same engine.

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
        protocols: Sequence[str | Mapping[str, Any] | Protocol] = ("paper", "recommended"),
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
    ) -> None:
        self.protocols = resolve_protocols(protocols)
        by_name = {figure.name: figure for protocol in self.protocols for figure in protocol.figures}
        if activation == "sigmoid" and any(METRICS[figure.metric].needs_top_label for figure in by_name.values()):
            classwise = [name for name, metric in METRICS.items() if not metric.needs_top_label]
            raise ValueError(f"multi-label predictions have no top label; ask for metrics out of {classwise}")
        self.class_names = list(class_names) if class_names else [f"class {k}" for k in range(num_classes)]
        if len(self.class_names) != num_classes:
            raise ValueError(f"expected {num_classes} class names, got {self.class_names}")
        self.num_classes = num_classes
        self.output_dir = Path(output_dir) if output_dir is not None else None
        self.run = dict(run or {})
        self.from_logits = from_logits
        self.activation: Activation = activation
        self.ignore_index = ignore_index
        self._by_name: dict[str, Figure] = by_name
        self._wanted = list(dict.fromkeys(name for protocol in self.protocols for name in protocol.reported_names()))
        # The whole volume first: it finds wrong input anywhere, before a region is drawn from it.
        regions = {figure.region.name: figure.region for figure in by_name.values()}
        self.regions: dict[str, Region] = dict(sorted(regions.items(), key=lambda item: item[1].kind != "all"))
        transform = output_transform or from_engine(["prob", "label"])
        figures = {name: f"{name}_macro" for name in by_name}
        super().__init__(figures, transform, spacing, save_details or output_dir is not None, prefix)

    @property
    def reported(self) -> list[str]:
        return [self.prefix + name for name in self._wanted]

    @reinit__is_reduced
    def reset(self) -> None:
        super().reset()
        self._pooled = {name: self._histogram(region) for name, region in self.regions.items()}
        self._histograms: list[dict[str, Any]] = []
        self._subjects: list[str] = []

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
        try:
            histograms = self._measure_regions(case)
        except ValueError as error:
            raise ValueError(f"case {case.name}: {error}") from error
        for name, histogram in histograms.items():
            self._pooled[name].merge(histogram)
        if self.output_dir is not None:
            self._histograms.append({name: histogram.to_json() for name, histogram in histograms.items()})
            self._subjects.append(str(case.data.get("subject", "")))
        return {name: figure.values(histograms[figure.region.name]) for name, figure in self._by_name.items()}

    def compute(self) -> dict[str, float]:
        """Figures over the cases of all ranks under their reported names; NaN where no case has any voxel."""
        macro = super().compute()
        if self.output_dir is not None:
            self._of_all_ranks["histograms"] = gather_lists(self._histograms)
            self._of_all_ranks["subjects"] = gather_lists(self._subjects)
        pooled = {name: self._over_all_ranks(name) for name in self._pooled}
        self._of_all_ranks["pooled"] = {name: histogram.state_dict() for name, histogram in pooled.items()}
        micro = {
            f"{self.prefix}{name}_micro": mean_without_nan(figure.values(pooled[figure.region.name]))
            for name, figure in self._by_name.items()
        }
        computed = macro | micro
        return {name: computed[name] for name in self.reported}

    def completed(self, engine: Engine, name: str = "") -> None:
        super().completed(engine, name)
        if self.output_dir is not None and rank() == 0:
            write_calibration_file(
                self.output_dir / f"{self.prefix}calibration.json",
                run=self.run,
                class_names=self.class_names,
                protocols=self.protocols,
                summary={name: engine.state.metrics[self.prefix + name] for name in self._wanted},
                pooled={name: self.pooled(region) for name, region in self.regions.items()},
                rows=self._of_all_ranks["rows"],
                histograms=self._of_all_ranks["histograms"],
                subjects=self._of_all_ranks["subjects"],
            )

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        pooled = {name: histogram.state_dict() for name, histogram in self._pooled.items()}
        kept = {"pooled": pooled, "histograms": self._histograms, "subjects": self._subjects}
        return {**kept, **super().state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if rank() == 0:
            for name, histogram in self._pooled.items():
                histogram.load_state_dict(state_dict["pooled"][name])
            self._histograms = list(state_dict["histograms"])
            self._subjects = list(state_dict["subjects"])

    def _over_all_ranks(self, region: str) -> CalibrationHistogram:
        """The pooled histogram of all ranks; a copy, so that updates may follow."""
        pooled = CalibrationHistogram.from_state(self._pooled[region].state_dict())
        if self.output_dir is None or world_size() == 1:
            return pooled.all_reduce()
        # The cases are at hand: added up one by one, as one process does, they give its sums to the last digit.
        pooled.reset()
        for case in self._of_all_ranks["histograms"]:
            pooled.merge(CalibrationHistogram.from_json(case[region]))
        return pooled

    def _histogram(self, region: Region) -> CalibrationHistogram:
        # Only the first region is measured on the whole volume; a small box may well be saturated, and no mistake.
        strict = region is next(iter(self.regions.values()))
        return CalibrationHistogram(
            self.num_classes, activation=self.activation, ignore_index=self.ignore_index, strict=strict
        )

    def _measure_regions(self, case: Case) -> dict[str, CalibrationHistogram]:
        histograms = {}
        masks = RegionMasks(*self._label_maps(case), case.spacing, case.data)
        voxels, labels = case.prediction.flatten(1), case.label.flatten(1)
        for name, region in self.regions.items():
            histograms[name] = histogram = self._histogram(region)
            if histogram.strict:
                mask = None if region.kind == "all" else masks.draw(region).flatten()[None]
                histogram.update(voxels[None], labels[None], mask, self.from_logits)
            else:
                inside = masks.draw(region).flatten().nonzero()[:, 0]
                if not len(inside):
                    continue
                chosen, theirs = voxels.index_select(1, inside), labels.index_select(1, inside)
                histogram.update(chosen[None], theirs[None], from_logits=self.from_logits)
            histogram.check()
            histogram.sums = histogram.sums.to("cpu")
        return histograms

    def _label_maps(self, case: Case) -> tuple[torch.Tensor, torch.Tensor]:
        """Class indices of truth and prediction, from which regions are drawn; ignored voxels are background."""
        if self.activation == "sigmoid":
            threshold = 0.0 if self.from_logits else 0.5
            truth, predicted = (case.label != 0).any(0).long(), (case.prediction > threshold).any(0).long()
        else:
            truth, predicted = index_map(case.label), top_class(case.prediction)
        if self.ignore_index is not None:
            ignored = (case.label == self.ignore_index).any(0)
            truth, predicted = truth.masked_fill(ignored, 0), predicted.masked_fill(ignored, 0)
        return truth, predicted
