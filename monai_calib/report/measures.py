"""The columns of the report: what a figure is called, where it is found, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass

from .protocols import Protocol

__all__ = ["Measure"]

_NAMES = {
    "dsc": "DSC",
    "hd95_mm": "HD95",
    "ece": "ECE",
    "classwise_ece": "cECE",
    "classwise_ece_paper": "cECE",
    "classwise_ece_above1e-3": "cECE above 0.001",
    "adaptive_ece": "adaptive ECE",
    "ace": "ACE",
    "mce": "MCE",
    "rmsce": "RMSCE",
    "tace": "TACE",
    "nll": "NLL",
    "brier": "Brier",
    "ks_error": "KS error",
    "debiased_ece": "debiased ECE",
    "expected_volume_error": "volume error, expected",
    "argmax_volume_error": "volume error, argmax",
    "expected_volume_bias": "bias of the expected volume",
    "train_seconds": "training",
}
_HIGHER_IS_BETTER = frozenset({"dsc", "sharpness", "resolution"})
# Zero is best but the sign says which way it errs, or the figure describes and does not judge: nothing to rank.
_DESCRIPTIVE = frozenset(
    {"sharpness", "resolution", "uncertainty", "mean_confidence", "accuracy", "expected_volume_bias"}
)


@dataclass(frozen=True)
class Measure:
    """One column: where its figures are found, how it is called, and which way is better."""

    kind: str
    case_key: str
    summary_key: str | None = None
    protocol: Protocol | None = None
    region: str | None = None
    reduction: str = "macro"

    @property
    def label(self) -> str:
        return _NAMES.get(self.kind, self.kind.replace("_", " "))

    @property
    def unit(self) -> str:
        return "mm" if self.kind.endswith("_mm") else "s" if self.kind.endswith("_seconds") else ""

    @property
    def lower_is_better(self) -> bool:
        return self.kind not in _HIGHER_IS_BETTER

    @property
    def ranks(self) -> bool:
        """Whether a smaller or larger figure is better at all."""
        return self.kind not in _DESCRIPTIVE

    @property
    def has_cases(self) -> bool:
        """Whether each case has a figure, so that there are intervals and tests: not for costs, nor for pooled ones."""
        return self.kind != "train_seconds" and self.reduction != "micro"

    @property
    def title(self) -> str:
        """The full name, with region and protocol: what a figure or test is headed with."""
        if self.protocol is None or self.region is None:
            return f"{self.label} ({self.unit})" if self.unit else self.label
        return f"{self.label}, {self.region}, protocol {self.protocol.name}, {self.reduction}"

    @property
    def key(self) -> str:
        """A name that no other measure has and that is safe in a file name or an HTML id."""
        return self.case_key if self.protocol is None else f"{self.protocol.name}-{self.summary_key or self.case_key}"
