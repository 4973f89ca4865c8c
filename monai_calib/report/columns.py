"""Columns of the report: a metric of the cases, how the cases are put together, and the protocol that asks for it."""

from __future__ import annotations

from dataclasses import dataclass

from monai_calib.metrics.metric import Metric
from monai_calib.metrics.protocols import METRICS

__all__ = ["TRAINING", "Column"]

TRAINING = Metric("train_seconds", "train_seconds", label="training", unit="s", direction=-1)
"""Seconds of training: of runs, not of cases."""
# What heads a narrow column; any other kind is headed by its description.
_SHORT = {
    "classwise_ece": "cECE",
    "classwise_ece_paper": "cECE",
    "classwise_ece_above1e-3": "cECE above 0.001",
    "rmsce": "RMSCE",
    "brier": "Brier",
    "root_brier": "root Brier",
    "penalised_ece": "pECE",
    "excess_aurc": "E-AURC",
    "rater_ece": "ECE, each rater",
    "rater_classwise_ece": "cECE, each rater",
    "least_nll": "least NLL",
    "least_brier": "least Brier",
    "dice_raters": "DSC, each rater",
    "volume_crps": "CRPS of the volume",
    "expected_volume_error": "volume error, expected",
    "argmax_volume_error": "volume error, argmax",
    "expected_volume_bias": "bias of the expected volume",
}
_UNITS = {"nats": ""}  # the unit of every NLL


@dataclass(frozen=True)
class Column:
    """One column: the metric of a case, its reduction over cases, and the name of its protocol, if it has one."""

    metric: Metric
    reduction: str = "macro"
    protocol: str = ""

    @property
    def kind(self) -> str:
        return self.metric.kind

    @property
    def label(self) -> str:
        kind = self.metric.kind
        if kind in METRICS:
            return _SHORT.get(kind, METRICS[kind].words)
        return _SHORT.get(self.metric.name) or self.metric.label or self.metric.name

    @property
    def unit(self) -> str:
        return _UNITS.get(self.metric.unit, self.metric.unit)

    @property
    def heading(self) -> str:
        """Label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def lower_is_better(self) -> bool:
        return self.metric.direction < 0

    @property
    def ranks(self) -> bool:
        """Whether a smaller or larger value is better at all."""
        return self.metric.direction != 0

    @property
    def has_cases(self) -> bool:
        """Whether each case has a value, so that there are intervals and tests: not for costs, nor for pooled ones."""
        return self.metric != TRAINING and self.reduction != "micro"

    @property
    def title(self) -> str:
        """The full name, with region and protocol: what a plot or test is headed with."""
        if not self.protocol:
            return self.heading
        return f"{self.label}, {self.metric.region}, protocol {self.protocol}, {self.reduction}"

    @property
    def key(self) -> str:
        """A name that no other column has and that is safe in a file name or an HTML id."""
        return f"{self.protocol}-{self.metric.reduced(self.reduction).name}" if self.protocol else self.metric.name
