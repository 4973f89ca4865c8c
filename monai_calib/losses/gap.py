"""Confidence equals accuracy where labels meet: a constraint whose multiplier follows the training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from typing_extensions import Unpack

from .arguments import above
from .base import SharedOptions, StatisticLoss
from .cross_entropy import CrossEntropy
from .neighborhood import outer_voxels
from .target import Target

__all__ = ["ConfidenceGap", "GapLoss"]


class ConfidenceGap(nn.Module):
    """``multiplier * h``, h the mean of confidence minus accuracy near predicted boundaries; the multiplier follows h.

    Attributes:
        multiplier: above 0 it lowers confidence, below 0 it raises it; a buffer, saved with the loss.
        gap: h of the last batch that moved it, NaN before the first.
    """

    multiplier: Tensor
    gap: Tensor

    def __init__(self, rate: float = 0.1, kernel_size: int | Sequence[int] = 3) -> None:
        super().__init__()
        self.rate = above("rate", rate, 0)
        self.kernel_size = kernel_size
        self.register_buffer("multiplier", torch.zeros(()))
        self.register_buffer("gap", torch.full((), torch.nan))

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        confidence, guess = logits.softmax(1).max(1)
        if target.soft is None:
            accuracy = (guess == target.index).to(confidence.dtype)
        else:
            accuracy = target.soft.gather(1, guess.unsqueeze(1)).squeeze(1).to(confidence.dtype)
        number = guess.to(torch.int16)
        if target.valid is None:
            near = outer_voxels(number, self.kernel_size)
        else:
            number = torch.where(target.valid, number, -1)
            near = target.valid & outer_voxels(number, self.kernel_size, ignore=-1)
        sums = torch.stack([((confidence - accuracy) * near).sum(), near.sum().to(confidence.dtype)])
        if self.multiplier.device != logits.device:
            self.to(logits.device)
        multiplier = self.multiplier.to(confidence.dtype, copy=True)
        if self.training and torch.is_grad_enabled() and logits.requires_grad:
            self._move(sums.detach())
        return multiplier * sums[0] / sums[1].clamp(min=1)

    @torch.no_grad()
    def _move(self, sums: Tensor) -> None:
        """A step of dual ascent with the batches of all ranks; one without a voxel near a boundary moves nothing."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
        gap = (sums[0] / sums[1].clamp(min=1)).to(self.gap.dtype)
        self.multiplier.add_(self.rate * gap)
        self.gap.copy_(torch.where(sums[1] > 0, gap, self.gap))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class GapLoss(StatisticLoss):
    """Cross-entropy, held to a confidence that equals the accuracy where labels meet.

    ``CE + alpha * multiplier * h`` with h the mean of ``max_k s_k - [argmax_k s_k = y]`` over the voxels of the batch
    whose neighbourhood holds more than one predicted label. (A region that the truth has a say in is not 0 even for a
    perfect posterior, :class:`~monai_calib.metrics.Region`, and so no constraint.) After every batch the multiplier
    of this constraint ``h = 0`` rises by ``rate * h`` (dual ascent): an over-confident network is drawn back, an
    under-confident one (h < 0, as at the start of a training) is pushed on. It settles where what makes the network
    over-confident, such as Dice in ``"dice_ce+gap"``, is in balance.

    The multiplier is a buffer: save the loss with the network to resume. It moves in training alone
    (``loss.train()``, logits that require a gradient); over several processes it moves with the batches of all.

    Args:
        rate: by how much the multiplier moves for a gap of 1; of 0.05 to 0.2 a training notices nothing.
        kernel_size: odd window of "near a boundary", one number or one per axis (thick slices: ``(3, 3, 1)``).
        alpha: weight of the constraint; it sets how fast the multiplier acts, as ``rate`` does.
        options: the arguments of :class:`ConstrainedLoss`.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``, or soft ``(B, K, *spatial)``: accuracy is then the
    label's probability of the predicted class. Returns a scalar.
    Raises: ``ValueError`` for a rate that is not positive, and for ``reduction="none"``.
    Source: this package; studies/one_training.md.

    Example:
        >>> loss = GapLoss(rate=0.5, lambda_ce=0.0)
        >>> logits = torch.tensor([[[4.0, 4.0, -4.0], [-4.0, -4.0, 4.0]]], requires_grad=True)
        >>> label = torch.tensor([[[0, 1, 1]]])  # of the two voxels at the predicted boundary one is wrong
        >>> [round(loss(logits, label).item(), 3) for _ in range(3)]  # 0, 0.5 h^2, h^2, for h = 0.9997 - 1 / 2
        [0.0, 0.125, 0.25]
    """

    penalty: ConfidenceGap

    def __init__(
        self,
        rate: float = 0.1,
        alpha: float = 1.0,
        kernel_size: int | Sequence[int] = 3,
        **options: Unpack[SharedOptions],
    ) -> None:
        super().__init__(CrossEntropy(), ConfidenceGap(rate, kernel_size), alpha, kernel_size=kernel_size, **options)
