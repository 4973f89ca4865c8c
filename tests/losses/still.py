"""Losses whose multipliers stand still, at a value that shows."""

from __future__ import annotations

from typing import Any

from torch import nn

from monai_calib.losses import build_loss
from monai_calib.losses.gap import ConfidenceGap


def build_still(name: str, **arguments: Any) -> Any:
    """As :func:`build_loss`, in evaluation mode and with a multiplier of 0.3 where a training would move it."""
    loss: nn.Module = build_loss(name, **arguments)
    for part in loss.modules():
        if isinstance(part, ConfidenceGap):
            part.multiplier.fill_(0.3)
            part.eval()
    return loss
