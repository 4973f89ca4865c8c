"""Averages of several predictions as one network, to be corrected and exported as one module.

The inferers average stitched volumes; these average what the network sees, a window, so that one file holds it all.
Where windows do not overlap the two are the same.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monai_calib.handlers.weights import load_trained
from monai_calib.inferers.dropout import dropout_layers
from monai_calib.inferers.flips import flips_along

__all__ = ["AveragedNetwork", "DropoutNetwork", "EnsembleNetwork", "FlipNetwork"]


class AveragedNetwork(nn.Module):
    """Returns ``log((1 / M) sum_m softmax(l_m))`` of several predictions, which takes the place of logits.

    Its correction cannot be folded into a last convolution: it goes out as a head behind the average.
    """


class EnsembleNetwork(AveragedNetwork):
    """The average of networks of one architecture with the weights of several checkpoints.

    Args:
        network: copied for each member.
        checkpoints: files with a state dict, or with a mapping that has it under ``"model"``.

    Raises: ``ValueError`` for no checkpoint; an error naming the file that does not fit.

    Example:
        >>> import tempfile
        >>> network, image = nn.Conv2d(1, 2, kernel_size=1), torch.ones(1, 1, 4, 4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "a.pt")
        ...     torch.save(network.state_dict(), path)
        ...     ensemble = EnsembleNetwork(network, [path, path])
        >>> torch.allclose(ensemble(image).exp(), network(image).softmax(1))
        True
    """

    def __init__(self, network: nn.Module, checkpoints: Sequence[str | os.PathLike[str]]) -> None:
        super().__init__()
        if not checkpoints:
            raise ValueError("checkpoints: expected at least one file, got none")
        self.members = nn.ModuleList(load_trained(copy.deepcopy(network), path) for path in checkpoints)
        self.log_count = math.log(len(checkpoints))

    def forward(self, image: Tensor) -> Tensor:
        """Log-probabilities ``(B, K, *spatial)``."""
        total = torch.zeros(1)
        for i, member in enumerate(self.members):
            added = _logits(member(image)).log_softmax(1)
            total = added if i == 0 else torch.logaddexp(total, added)
        return total - self.log_count


class FlipNetwork(AveragedNetwork):
    """The average over the image and its mirror images along every subset of axes, each flipped back.

    Args:
        network: predicts one image.
        axes: spatial axes along which training images were mirrored too; see :class:`~.flips.FlipInferer`.

    Raises: ``ValueError`` as :func:`~.flips.flips_along`.

    Example:
        >>> network, image = nn.Conv2d(1, 2, kernel_size=1), torch.randn(1, 1, 4, 4)
        >>> torch.allclose(FlipNetwork(network, [0])(image).exp(), network(image).softmax(1), atol=1e-6)
        True
    """

    def __init__(self, network: nn.Module, axes: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.flips = flips_along(axes)

    def forward(self, image: Tensor) -> Tensor:
        """Log-probabilities ``(B, K, *spatial)``."""
        total = torch.zeros(1)
        for i, dims in enumerate(self.flips):
            added = _logits(self.network(image.flip(dims))).flip(dims).log_softmax(1)
            total = added if i == 0 else torch.logaddexp(total, added)
        return total - math.log(len(self.flips))


class DropoutNetwork(AveragedNetwork):
    """The average over predictions with dropout switched on, in evaluation mode too.

    Args:
        network: with dropout layers, which are replaced in a copy.
        samples: predictions to average.

    Raises: ``ValueError`` for fewer than one sample, or a network without dropout layers.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 2, kernel_size=1), nn.Dropout(0.5)).eval()
        >>> average = DropoutNetwork(network, samples=3).eval()
        >>> image = torch.ones(1, 1, 8, 8)
        >>> bool((average(image).exp() - network(image).softmax(1)).abs().max() > 0.01)
        True
    """

    def __init__(self, network: nn.Module, samples: int = 10) -> None:
        super().__init__()
        if samples < 1:
            raise ValueError(f"samples: expected at least 1, got {samples}")
        self.network = copy.deepcopy(network)
        layers = dropout_layers(self.network)
        for parent in list(self.network.modules()):
            for name, child in parent.named_children():
                if child in layers:
                    whole_channels = isinstance(child, (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d))
                    setattr(parent, name, _AlwaysDropout(child.p, whole_channels))
        self.samples = samples

    def forward(self, image: Tensor) -> Tensor:
        """Log-probabilities ``(B, K, *spatial)``, other ones at each call."""
        total = _logits(self.network(image)).log_softmax(1)
        for _ in range(self.samples - 1):
            total = torch.logaddexp(total, _logits(self.network(image)).log_softmax(1))
        return total - math.log(self.samples)


class _AlwaysDropout(nn.Module):
    """Dropout of single values, or of whole channels, that no ``eval()`` switches off."""

    def __init__(self, p: float, whole_channels: bool) -> None:
        super().__init__()
        self.p = p
        self.whole_channels = whole_channels

    def forward(self, x: Tensor) -> Tensor:
        if self.whole_channels:
            return torch.feature_dropout(x, self.p, True)
        return nn.functional.dropout(x, self.p, True)


def _logits(output: Tensor | list[Tensor]) -> Tensor:
    """Unwrap the list that BasicUNetPlusPlus makes of its one output."""
    return output[0] if isinstance(output, list) else output
