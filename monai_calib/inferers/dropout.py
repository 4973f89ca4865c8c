"""Monte Carlo dropout: the average over networks that lack other units each time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from monai_calib.inferers.averaging import AveragingInferer

__all__ = ["MCDropoutInferer"]


class MCDropoutInferer(AveragingInferer):
    """Averages the probabilities of several predictions with dropout switched on.

    Only the network's dropout layers go into training mode, and only while it predicts; normalisation stays in
    evaluation mode. Units are drawn anew for every window, from PyTorch's generator: set its seed to repeat a result.

    Args:
        samples: predictions to average.
        inferer: makes one prediction, see :class:`AveragingInferer`.

    Raises: ``ValueError`` for fewer than one sample, or a network without dropout layers. Warns if all of them drop
        nothing.
    Source: Gal and Ghahramani, ICML 2016; https://arxiv.org/abs/1506.02142

    Example:
        >>> _ = torch.manual_seed(0)
        >>> network = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(4, 2, kernel_size=1)).eval()
        >>> image = torch.ones(1, 4, 8, 8)
        >>> bool((MCDropoutInferer(samples=5)(image, network).exp() - network(image).softmax(1)).abs().max() > 0.01)
        True
        >>> network[0].training
        False
    """

    def __init__(self, samples: int = 10, inferer: Callable[..., torch.Tensor] | None = None) -> None:
        super().__init__(inferer)
        if samples < 1:
            raise ValueError(f"samples: expected at least 1, got {samples}")
        self.samples = samples

    def predictions(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Iterator[torch.Tensor]:
        layers = dropout_layers(network)
        if not any(layer.p > 0 for layer in layers):
            warnings.warn(
                f"{type(network).__name__}: its dropout layers have p = 0, so all samples are equal", stacklevel=2
            )
        for _ in range(self.samples):
            with _switched_on(layers):
                logits = self.inferer(inputs, network, *args, **kwargs)
            yield logits
            del logits


def dropout_layers(network: Any) -> list[_DropoutNd]:
    """The network's dropout layers; ``ValueError`` if it has none.

    Example:
        >>> dropout_layers(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)))
        [Dropout(p=0.1, inplace=False)]
    """
    modules = network.modules() if isinstance(network, nn.Module) else ()
    layers = [module for module in modules if isinstance(module, _DropoutNd)]
    if not layers:
        raise ValueError(
            f"network: expected dropout layers, {type(network).__name__} has none: build and train it with a dropout "
            "rate above 0"
        )
    return layers


@contextmanager
def _switched_on(layers: list[_DropoutNd]) -> Iterator[None]:
    before = [layer.training for layer in layers]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer, training in zip(layers, before, strict=True):
            layer.train(training)
