"""One case measured by protocols: a histogram a region, and every metric from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from monai_calib.labels import check_label, mean_label, top_class
from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.inputs import Activation
from monai_calib.metrics.metric import Metric, mean_without_nan
from monai_calib.metrics.overlap import expected_dice_coefficients, expected_dice_metric
from monai_calib.metrics.protocols import METRICS, Protocol, measure, resolve_protocols
from monai_calib.metrics.raters import agreement, measure_raters, rater_metrics
from monai_calib.metrics.regions import Region, RegionMasks

__all__ = ["VOLUME_METRICS", "CaseEvaluation", "Measured", "volume_errors"]

VOLUME_METRICS = {
    "expected_volume_bias": ("error of the expected volume, signed, relative", 0),
    "expected_volume_error": ("error of the expected volume, relative", -1),
    "argmax_volume_error": ("error of the counted volume, relative", -1),
}
"""Names, words and directions of the volume errors."""
_DISTANCE = "distance to the true probabilities"


class Measured(NamedTuple):
    """One case: values per metric (one, or one per class), and a histogram per region."""

    values: dict[str, list[float]]
    histograms: dict[str, CalibrationHistogram]


class CaseEvaluation:
    """Measures cases by protocols; keeps nothing.

    Args:
        num_classes: channels of the prediction, background included.
        protocols: names, mappings or :class:`~monai_calib.metrics.protocols.Protocol`; ``paper`` and ``by_region``,
            or for sigmoid ``by_region_sigmoid``, if not given.
        classes: names of the channels; ``class 0 ...`` by default.
        from_logits: whether predictions are logits.
        activation: ``"softmax"``, or ``"sigmoid"`` for multi-label predictions.
        ignore_index: label of voxels that count nowhere.
        histograms_alone: whether histograms will be all there is, as of other sites: leaves out what needs the voxels.
        posterior: whether cases come with the known probability of each class, as a phantom's; adds the distance to it.

    Attributes:
        metrics: of a case, by name; volume errors are among them where the whole volume is measured, and the expected
            Dice where the predicted foreground is as well.
        summary_metrics: of all cases, by name.
        regions: to measure in, by name.

    Raises: ``ValueError`` for protocols or names that do not fit.

    Example:
        >>> evaluation = CaseEvaluation(2, [Protocol("mine", ["all", "predicted"], ["ece"])])
        >>> probability = torch.full((2, 4), 0.5)
        >>> measured = evaluation.measure(probability, torch.tensor([0, 0, 1, 1]), spacing=(1.0,))
        >>> measured.values["ece_all_15bins"], measured.values["expected_volume_error"]
        ([0.0], [0.0])
    """

    def __init__(
        self,
        num_classes: int,
        protocols: Sequence[str | Mapping[str, Any] | Protocol] | None = None,
        classes: Sequence[str] | None = None,
        from_logits: bool = False,
        activation: Activation = "softmax",
        ignore_index: int | None = None,
        histograms_alone: bool = False,
        posterior: bool = False,
    ) -> None:
        self.classes = list(classes) if classes else [f"class {k}" for k in range(num_classes)]
        if len(self.classes) != num_classes:
            raise ValueError(f"classes: expected {num_classes} names, got {self.classes}")
        default = ("by_region_sigmoid",) if activation == "sigmoid" else ("paper", "by_region")
        self.protocols = resolve_protocols(default if protocols is None else protocols)
        self.num_classes = num_classes
        self.from_logits = from_logits
        self.activation: Activation = activation
        self.ignore_index = ignore_index
        by_protocol = [metric for protocol in self.protocols for metric in protocol.case_metrics(self.classes)]
        self.from_histograms: dict[str, Metric] = {metric.name: metric for metric in by_protocol}
        if activation == "sigmoid" and any(METRICS[metric.kind].needs_top_label for metric in by_protocol):
            classwise = [name for name, metric in METRICS.items() if not metric.needs_top_label]
            raise ValueError(
                "protocols: multi-label predictions have no top label; ask for protocol 'by_region_sigmoid', or for "
                f"metrics out of {classwise}"
            )
        # The whole volume first: it finds wrong input anywhere, before a region is drawn from it.
        regions = {region.name: region for protocol in self.protocols for region in map(Region.parse, protocol.regions)}
        self.regions: dict[str, Region] = dict(sorted(regions.items(), key=lambda item: item[1].kind != "all"))
        volumes = [
            Metric(name, name, "all", label=words, direction=direction)
            for name, (words, direction) in VOLUME_METRICS.items()
            if "all" in regions
            and activation == "softmax"
            and (name != "argmax_volume_error" or "predicted" in regions)
        ]
        self.of_raters = [metric for metric in by_protocol if METRICS[metric.kind].against != "label"]
        if self.of_raters:
            if activation == "sigmoid":
                raise ValueError("raters: expected softmax predictions, got multi-label ones. Leave the protocol out.")
            volumes += rater_metrics(self.classes, "all" in regions)
        if activation == "softmax" and {"all", "predicted"} <= set(regions) and not histograms_alone:
            volumes.append(expected_dice_metric(self.classes))
        if posterior and activation == "sigmoid":
            raise ValueError("posterior: expected softmax predictions, got multi-label ones. Measure against labels.")
        self.distances = {
            f"posterior_distance_{region.name}": region
            for region in self.regions.values()
            if posterior and region.kind in ("all", "boundary")
        }
        volumes += [
            Metric(name, "posterior_distance", region.name, label=f"{_DISTANCE}, {region.words}", direction=-1)
            for name, region in self.distances.items()
        ]
        self.metrics = self.from_histograms | {metric.name: metric for metric in volumes}
        summary = [metric for protocol in self.protocols for metric in protocol.summary_metrics(self.classes)]
        summary += [metric.reduced("macro") for metric in volumes]
        self.summary_metrics = {metric.name: metric for metric in summary}

    def histogram(self) -> CalibrationHistogram:
        """An empty histogram of the kind that is filled."""
        return CalibrationHistogram(self.num_classes, activation=self.activation, ignore_index=self.ignore_index)

    def measure(
        self,
        prediction: torch.Tensor,
        label: torch.Tensor,
        spacing: Sequence[float] | None = None,
        masks: Mapping[str, torch.Tensor] | None = None,
        drawn_from: torch.Tensor | None = None,
        raters: torch.Tensor | None = None,
        posterior: torch.Tensor | None = None,
    ) -> Measured:
        """Measure one case.

        Args:
            prediction: ``(K, *spatial)``.
            label: ``(1, *spatial)`` or ``(*spatial)`` class numbers, or ``(K, *spatial)`` one-hot or soft.
            spacing: voxel size in mm, one number an axis; regions with a size in mm need it.
            masks: the user's own, by key.
            drawn_from: another prediction, from which regions are drawn: that before a correction, so that the same
                voxels are measured before and after.
            raters: class numbers of several raters ``(R, *spatial)``. Their mean then stands in the place of the label,
                and regions are drawn from the class that most of them gave. Without, the label is the only rater's.
            posterior: known probability of each class ``(K, *spatial)``. It stands in the place of the label, so that
                no value depends on how the label was drawn; regions are drawn from the likeliest class.

        Raises: ``ValueError`` for wrong values, as :meth:`CalibrationHistogram.update` and as
            :class:`~monai_calib.metrics.regions.RegionMasks`.
        """
        label = label[None] if label.ndim == prediction.ndim - 1 else label
        if raters is not None:
            raters = raters.to(prediction.device)
            label = mean_label(raters, self.num_classes, self.ignore_index)
        if (posterior is not None) != bool(self.distances):
            raise ValueError(
                "posterior: expected one of every case, or of none, as the evaluation was told; load it with "
                "LoadPosteriord, or leave it out."
            )
        if posterior is not None:
            if posterior.shape != prediction.shape:
                raise ValueError(
                    f"posterior: expected the shape of the prediction {tuple(prediction.shape)}, got "
                    f"{tuple(posterior.shape)}. Bring it to the prediction's grid."
                )
            label = posterior.to(prediction.device)
        truth, predicted, ignored = self._label_maps(prediction if drawn_from is None else drawn_from, label)
        disputed = label.amax(0) < 1 if len(label) > 1 and self.activation == "softmax" else None
        drawn = RegionMasks(truth, predicted, spacing, masks, ignored, disputed)
        voxels, labels = prediction.flatten(1), label.flatten(1)
        histograms = {}
        predicted_voxels = None
        for number, (name, region) in enumerate(self.regions.items()):
            histograms[name] = histogram = self.histogram()
            if number == 0:  # only here the whole volume is looked at: a small region may well be saturated
                mask = None if region.kind == "all" else drawn.draw(region).flatten()[None]
                histogram.update(voxels[None], labels[None], mask, self.from_logits)
            else:
                inside = drawn.draw(region).flatten().nonzero()[:, 0]
                chosen, theirs = voxels.index_select(1, inside), labels.index_select(1, inside)
                histogram.update(chosen[None], theirs[None], from_logits=self.from_logits, strict=False)
                if region.kind == "predicted" and drawn_from is None:
                    predicted_voxels = chosen
            histogram.check()
            histogram.sums = histogram.sums.to("cpu")
        values = self.of_histograms(histograms)
        if "expected_dice" in self.metrics:
            if predicted_voxels is None:  # regions are those of another prediction
                found = top_class(voxels) != 0
                predicted_voxels = voxels[:, found if ignored is None else found & ~ignored.flatten()]
            values["expected_dice"] = self._expected_dice(predicted_voxels, histograms["all"])
        if self.of_raters:
            values |= self._rater_values(prediction, label, raters, drawn, histograms)
        for name, region in self.distances.items():
            inside = drawn.draw(region).flatten()
            values[name] = [self._distance(voxels[:, inside], labels[:, inside])]
        return Measured(values, histograms)

    def of_histograms(self, histograms: Mapping[str, CalibrationHistogram]) -> dict[str, list[float]]:
        """Every metric that histograms by region tell: all but those of several raters."""
        values = {
            name: measure(metric, histograms[metric.region or ""])
            for name, metric in self.from_histograms.items()
            if METRICS[metric.kind].against == "label"
        }
        if "expected_volume_error" in self.metrics:
            volumes = volume_errors(histograms["all"], histograms.get("predicted"))
            values |= {name: [value] for name, value in volumes.items()}
        return values

    def summarize(
        self, rows: Mapping[str, Sequence[Sequence[float]]], pooled: Mapping[str, CalibrationHistogram]
    ) -> dict[str, float]:
        """The summary of all cases: means over cases, and metrics of the histograms of all cases together.

        Args:
            rows: values of the cases per metric, as :meth:`measure` gives them.
            pooled: histogram per region.
        """
        found = {
            f"{name}_macro": mean_without_nan([mean_without_nan(row) for row in rows[name]]) for name in self.metrics
        }
        found |= {
            f"{name}_micro": mean_without_nan(measure(metric, pooled[metric.region or ""]))
            for name, metric in self.from_histograms.items()
        }
        return {name: found[name] for name in self.summary_metrics}

    def _expected_dice(self, inside: torch.Tensor, whole: CalibrationHistogram) -> list[float]:
        probability = inside.float().softmax(0) if self.from_logits else inside
        return expected_dice_coefficients(probability, whole.class_bins().confidence[1:].sum(1).tolist())

    def _distance(self, inside: torch.Tensor, posterior: torch.Tensor) -> float:
        """Mean total variation distance ``1/2 sum_k |p_k - q_k|`` of voxels ``(K, n)``, NaN without any."""
        probability = inside.float().softmax(0) if self.from_logits else inside
        return float((probability.double() - posterior.double()).abs().sum(0).mean() / 2)

    def _rater_values(
        self,
        prediction: torch.Tensor,
        label: torch.Tensor,
        raters: torch.Tensor | None,
        drawn: RegionMasks,
        histograms: Mapping[str, CalibrationHistogram],
    ) -> dict[str, list[float]]:
        if raters is None:
            if len(label) > 1:
                raise ValueError(
                    "raters: expected their class numbers (R, *spatial), got a soft or one-hot label alone. Keep them "
                    "with KeepRatersd, or leave the protocol 'raters' out."
                )
            raters, label = label, mean_label(label, self.num_classes, self.ignore_index)
        voxels, of_raters, shares = prediction.flatten(1), raters.flatten(1), label.flatten(1)
        values: dict[str, list[float]] = {}
        for name, region in self.regions.items():
            metrics = [metric for metric in self.of_raters if metric.region == name]
            if not metrics:
                continue
            parts = (voxels, of_raters, shares)
            if region.kind != "all":
                inside = drawn.draw(region).flatten().nonzero()[:, 0]
                parts = (voxels[:, inside], of_raters[:, inside], shares[:, inside])
            values |= measure_raters(metrics, *parts, self.histogram(), self.from_logits)
        volumes = None
        if "volume_crps" in self.metrics:
            volumes = histograms["all"].class_bins().confidence[1:].sum(1).tolist()
        return values | agreement(top_class(prediction), raters, self.num_classes, self.ignore_index, volumes)

    def _label_maps(
        self, prediction: torch.Tensor, label: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Class numbers of truth and prediction, from which regions are drawn, and what is ignored."""
        ignored = None if self.ignore_index is None else (label == self.ignore_index).any(0)
        if self.activation == "sigmoid":
            threshold = 0.0 if self.from_logits else 0.5
            return (label != 0).any(0).long(), (prediction > threshold).any(0).long(), ignored
        predicted = top_class(prediction)
        if len(label) > 1:
            truth = top_class(label)
            # one channel per class: the ignored class is a channel, or a value that no channel has otherwise
            if self.ignore_index is not None and self.ignore_index in range(len(label)):
                ignored = truth == self.ignore_index
            return truth, predicted, ignored
        # Wrong values are told by the histogram, or by its check after the pass.
        return check_label(label[0], self.num_classes, self.ignore_index, look=False).index, predicted, ignored


def volume_errors(whole: CalibrationHistogram, predicted: CalibrationHistogram | None = None) -> dict[str, float]:
    """Errors of a case's foreground volume relative to the true one, from histograms alone.

    The summed probability of the foreground classes over the whole volume is their expected volume ``E`` in voxels, the
    voxels of the region ``predicted`` the volume counted from labels: ``expected_volume_bias = (E - V) / V``,
    ``expected_volume_error`` its size, ``argmax_volume_error`` that of the counted volume; NaN without true foreground.

    Example:
        >>> hist = CalibrationHistogram(2)
        >>> hist.update(torch.tensor([[[0.5, 0.5], [0.5, 0.5]]]), torch.tensor([[0, 1]]), from_logits=False)
        >>> volume_errors(hist)
        {'expected_volume_bias': 0.0, 'expected_volume_error': 0.0}
    """
    bins = whole.class_bins()
    true = float(bins.hits[1:].sum()) or math.nan
    bias = (float(bins.confidence[1:].sum()) - true) / true
    errors = {"expected_volume_bias": bias, "expected_volume_error": abs(bias)}
    if predicted is not None:
        errors["argmax_volume_error"] = abs(predicted.voxels - true) / true
    return errors
