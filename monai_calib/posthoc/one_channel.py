"""Networks of one sigmoid channel, corrected as softmax of two: the sigmoid of z is the softmax of (0, z)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_calib.posthoc.base import Calibrator
from monai_calib.posthoc.linear import LinearHead

__all__ = ["OneChannel", "TwoClasses", "one_channel_head"]


class TwoClasses(nn.Module):
    """Logits ``(B, 2, *spatial)`` of a network that returns one sigmoid channel.

    Example:
        >>> network = nn.Conv2d(1, 1, 1)
        >>> image = torch.randn(1, 1, 4, 4)
        >>> torch.allclose(TwoClasses(network)(image).softmax(1)[:, 1:], network(image).sigmoid())
        True
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Logits of background and foreground."""
        z = self.network(image)
        return torch.cat([torch.zeros_like(z), z], 1)


class OneChannel(nn.Module):
    """Gives the one logit ``(B, 1, *spatial)`` of a network of two classes, as its sigmoid users expect it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Logit of the foreground against the background."""
        logits = self.network(image)
        return logits[:, 1:2] - logits[:, 0:1]


def one_channel_head(calibrator: Calibrator) -> LinearHead:
    """Head of one channel that a linear correction of (0, z) amounts to, to be folded: ``z' = w z + b``.

    Example:
        >>> from monai_calib.posthoc import TemperatureScaling
        >>> scaling = TemperatureScaling(2)
        >>> scaling.set_temperature(4.0)
        >>> one_channel_head(scaling)(torch.full((1, 1, 1), 2.0)).flatten().tolist()
        [0.5]
    """
    probe = torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])  # z = 0 and z = 1
    with torch.no_grad():
        at = calibrator.head(probe)
    b, w_and_b = (at[0, 1] - at[0, 0]).tolist()
    return LinearHead(torch.tensor([[w_and_b - b]]), torch.tensor([b]))
