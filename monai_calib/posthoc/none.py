"""The correction that changes nothing, so that "no correction" has a record and a model like any other."""

from __future__ import annotations

from torch import Tensor, nn

from monai_calib.metrics.regions import Region
from monai_calib.posthoc.base import Calibrator, FitRecord
from monai_calib.posthoc.stream import LogitCase

__all__ = ["NoCorrection"]


class NoCorrection(Calibrator):
    """Leaves the logits as they are.

    Example:
        >>> import torch
        >>> NoCorrection(2).apply(torch.tensor([[[3.0], [1.0]]])).flatten().tolist()
        [3.0, 1.0]
    """

    method = "none"
    foldable = True
    keeps_argmax = True
    default_region = "all"

    def __init__(self, num_classes: int, region: str | Region | None = None) -> None:
        super().__init__(num_classes, region)
        self.record = FitRecord(status="converged", message="nothing was fitted", region=str(self.region))

    def make_head(self) -> nn.Module:
        return _Unchanged()

    def observe(self, case: LogitCase) -> None:
        """Look at nothing."""

    def end_pass(self) -> bool:
        return True

    def in_words(self) -> str:
        return "the network as trained"


class _Unchanged(nn.Module):
    def forward(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        return logits
