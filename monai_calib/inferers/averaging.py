"""The average of several predictions' probabilities, as logits, one prediction in memory at a time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer

__all__ = ["AveragingInferer", "log_mean_probability"]

_SLAB_VOXELS = 2**20


class AveragingInferer(Inferer, ABC):
    """Predicts a volume several times and returns ``log((1 / M) sum_m softmax(l_m))``.

    The softmax of what it returns is the average of the ``M`` predictions' probabilities, so it takes the place of
    logits: postprocessing, calibration handler and temperature scaling stay as they are for one network.

    Two volumes of logits are in memory at a time, the sum so far and the prediction that is added to it, however many
    predictions there are.

    Args:
        inferer: makes one prediction, such as ``monai.inferers.SlidingWindowInferer``; must return logits (or their
            equivalent), not probabilities. The whole volume in one piece by default.

    Shape: input ``(B, C, *spatial)``; returns log-probabilities ``(B, K, *spatial)`` in float32, of ``K`` exclusive
        classes, without gradients.
    """

    def __init__(self, inferer: Callable[..., torch.Tensor] | None = None) -> None:
        super().__init__()
        self.inferer = inferer or SimpleInferer()

    @abstractmethod
    def predictions(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Iterator[torch.Tensor]:
        """The predictions to average, each computed when it is asked for."""

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        return log_mean_probability(self.predictions(inputs, network, *args, **kwargs))


def log_mean_probability(predictions: Iterable[torch.Tensor]) -> torch.Tensor:
    """Logarithm of the mean of ``softmax(logits, 1)`` over the logits ``(B, K, *spatial)``, in float32.

    Computed as a running ``logaddexp``, so that probabilities far below float32's smallest number keep their logarithm,
    and slab by slab along the first spatial axis.

    Raises: ``TypeError`` for a prediction that is not one tensor; ``ValueError`` without any.

    Example:
        >>> certain, unsure = torch.tensor([[[4.0], [0.0]]]), torch.tensor([[[0.0], [0.0]]])
        >>> log_mean_probability([certain, unsure]).exp().flatten().tolist()  # mean of 0.982 and 0.5
        [0.7410..., 0.2589...]
    """
    total: torch.Tensor | None = None
    count = 0
    for logits in predictions:
        if not isinstance(logits, torch.Tensor):
            raise TypeError(f"expected one tensor of logits from the inferer, got {type(logits).__name__}")
        count += 1
        if total is None:
            total = logits.float().log_softmax(1)
        else:
            _add(total, logits)
        del logits  # or it would stay while the next is computed
    if total is None:
        raise ValueError("predictions: expected at least one, got none")
    return total.sub_(math.log(count))


def _add(total: torch.Tensor, logits: torch.Tensor) -> None:
    step = max(1, _SLAB_VOXELS // max(1, logits.shape[3:].numel()))
    for sums, added in zip(total.split(step, 2), logits.split(step, 2), strict=True):
        torch.logaddexp(sums, added.float().log_softmax(1), out=sums)
