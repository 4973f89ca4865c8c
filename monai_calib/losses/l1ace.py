"""mL1-ACE: the gap between confidence and frequency, bin by bin, as a training objective."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from .arguments import at_least
from .base import Options, StatisticLoss
from .cross_entropy import CrossEntropy
from .target import Target

__all__ = ["HardBinnedError", "HardL1ACELoss", "SoftBinnedError", "SoftL1ACELoss"]


class BinnedError(nn.Module):
    """Mean over images and classes of the mean gap ``|mean s - mean y|`` of the occupied bins."""

    def __init__(self, num_bins: int, ignore_empty_classes: bool, include_background: bool) -> None:
        super().__init__()
        at_least("num_bins", num_bins, 1)
        self.num_bins = num_bins
        self.ignore_empty_classes = ignore_empty_classes
        self.include_background = include_background

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        prob = logits.softmax(1).flatten(2)
        weight = target.known(prob.dtype).flatten(1)
        first = 0 if self.include_background else 1
        rows = [self._row(prob[:, k], self._truth(target, k, prob), weight) for k in range(first, prob.shape[1])]
        return torch.stack(rows).sum().to(prob.dtype) / max(len(rows) * len(prob), 1) if rows else prob.sum() * 0

    def _truth(self, target: Target, k: int, like: Tensor) -> Tensor:
        truth = target.index == k if target.soft is None else target.soft[:, k]
        return truth.flatten(1).to(like.dtype)

    def _row(self, prob: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        row = self.mean_gap(prob, truth, weight)
        return row * ((truth * weight).sum(1) > 0) if self.ignore_empty_classes else row

    def mean_gap(self, prob: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        """Mean gap of the occupied bins of one class ``(B,)``, from three tensors ``(B, N)``."""
        raise NotImplementedError

    def edges(self, prob: Tensor) -> Tensor:
        """Borders of the bins; like MONAI's, a rounding error beyond 1 so that a probability of 1 is inside."""
        last = 1.0 + torch.finfo(torch.float32).eps
        return torch.linspace(0.0, last, self.num_bins + 1, dtype=prob.dtype, device=prob.device)

    def sums(self, index: Tensor, value: Tensor) -> Tensor:
        """Sums of ``value (B, N)`` by bin ``(B, num_bins)``: in float64, since a bin may hold more voxels than float32
        can count one by one. On a GPU voxels take turns between copies of the bins: most background voxels fall in
        the same one, where additions wait for one another."""
        wide = value.dtype if value.device.type == "mps" else torch.float64
        copies = 1 if value.device.type == "cpu" else 256
        turn = torch.arange(value.shape[1], device=value.device) % copies
        spread = torch.zeros(len(value), copies * self.num_bins, dtype=wide, device=value.device)
        spread = spread.scatter_add(1, index + self.num_bins * turn, value.to(wide))
        return spread.view(len(value), copies, self.num_bins).sum(1)


class HardBinnedError(BinnedError):
    """Every probability counts in its own bin; bins are constant, their means differentiable."""

    def __init__(
        self,
        num_bins: int = 20,
        right: bool = False,
        ignore_empty_classes: bool = True,
        include_background: bool = True,
    ) -> None:
        super().__init__(num_bins, ignore_empty_classes, include_background)
        self.right = right

    def mean_gap(self, prob: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        with torch.no_grad():
            index = torch.bucketize(prob.detach().contiguous(), self.edges(prob)[1:], right=self.right)
            index = index.clamp_(max=self.num_bins - 1)
            count, gap = self.sums(index, weight), self.sums(index, weight * (prob - truth))
            occupied = (count > 0).sum(1, keepdim=True).clamp(min=1)
            # |gap| is linear in the probabilities of a bin, with the same slope at all of them
            slope = (gap.sign() / (count.clamp(min=1) * occupied)).to(prob.dtype).gather(1, index) * weight
        return (slope * (prob - truth)).sum(1)


class SoftBinnedError(BinnedError):
    """Every probability is shared between the two neighbouring bin centres, in proportion to its nearness."""

    def __init__(
        self,
        num_bins: int = 20,
        empty_weight: float = 0.01,
        ignore_empty_classes: bool = True,
        include_background: bool = True,
    ) -> None:
        super().__init__(num_bins, ignore_empty_classes, include_background)
        self.empty_weight = at_least("empty_weight", empty_weight, 0)

    def mean_gap(self, prob: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        # in units of bins, 0 at the lowest centre; outside the outermost centres a probability belongs to them
        place = prob / self.edges(prob)[1] - 0.5
        with torch.no_grad():
            lower = place.floor().clamp_(0, max(self.num_bins - 2, 0)).nan_to_num_(0.0).long()
            upper = (lower + 1).clamp_(max=self.num_bins - 1)
        share = (place - lower).clamp(0, 1)
        gap = weight * (prob - truth)
        count, total = (self.sums(lower, x * (1 - share)) + self.sums(upper, x * share) for x in (weight, gap))
        occupied = (count > 0) & (count >= self.empty_weight)
        gaps = torch.where(occupied, total.abs() / torch.where(occupied, count, 1.0), 0.0)
        return gaps.sum(1) / occupied.sum(1).clamp(min=1)


class HardL1ACELoss(StatisticLoss):
    """Cross-entropy plus the marginal L1 average calibration error of each image, with hard bins (mL1-ACE).

    ``CE + alpha * mean_{B,K} mean_{occupied bins} |mean s - mean y|``: within a bin the means of probability and of
    label should agree, and every occupied bin counts the same, however few voxels it has. With ``lambda_ce=0,
    alpha=1`` it is the ``HardL1ACELoss(softmax=True, to_onehot_y=True)`` of MONAI's development version, whose names
    of arguments it shares; there ``weight`` weighs the classes of the error, here those of cross-entropy.

    Args:
        num_bins: bins of equal width in [0, 1].
        alpha: weight of the error; the paper's 1, next to cross-entropy and Dice (``lambda_dice=1``).
        right: whether a probability on the border of two bins counts in the upper one; MONAI's argument, which is
            that of ``torch.bucketize``.
        ignore_empty_classes: a class that an image's label does not hold contributes 0 to the mean.
        options: the arguments of :class:`ConstrainedLoss`; ``include_background=False`` leaves class 0 out of the mean.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``; returns a scalar.
    Raises: ``ValueError`` if ``num_bins`` is below 1, and for ``reduction="none"``.
    Source: Barfoot et al., MICCAI 2024 (https://arxiv.org/abs/2403.06759; its code counts
    classes that an image does not hold: ``ignore_empty_classes=False``) and IEEE TMI 2026,
    https://doi.org/10.1109/TMI.2026.3673118

    Example:
        >>> loss = HardL1ACELoss(lambda_ce=0.0)
        >>> loss(torch.zeros(1, 2, 4), torch.zeros(1, 1, 4)).item()  # class 0: |0.5 - 1|, class 1 absent: 0
        0.25
    """

    def __init__(
        self,
        num_bins: int = 20,
        alpha: float = 1.0,
        right: bool = False,
        ignore_empty_classes: bool = True,
        **options: Unpack[Options],
    ) -> None:
        penalty = HardBinnedError(num_bins, right, ignore_empty_classes, options.get("include_background", True))
        super().__init__(CrossEntropy(), penalty, alpha, **options)


class SoftL1ACELoss(StatisticLoss):
    """Cross-entropy plus the marginal L1 average calibration error of each image, with soft bins (mL1-ACE).

    As :class:`HardL1ACELoss`, with every probability shared between the two nearest bin centres by linear
    interpolation, so that the gradient also moves probabilities from bin to bin. With ``lambda_ce=0`` it is the
    ``SoftL1ACELoss`` of MONAI's development version.

    Args:
        num_bins: bin centres at ``(j + 1/2) / num_bins``.
        alpha: weight of the error; the paper's 1, next to cross-entropy and Dice (``lambda_dice=1``).
        empty_weight: bins with less than this weight, in voxels, are ignored.
        ignore_empty_classes: a class that an image's label does not hold contributes 0 to the mean.
        options: the arguments of :class:`ConstrainedLoss`; ``include_background=False`` leaves class 0 out of the mean.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``; returns a scalar.
    Raises: ``ValueError`` if ``num_bins`` is below 1 or ``empty_weight`` negative, and for ``reduction="none"``.
    Source: Barfoot et al., IEEE TMI 2026, https://doi.org/10.1109/TMI.2026.3673118

    Example:
        >>> loss = SoftL1ACELoss(lambda_ce=0.0)
        >>> loss(torch.zeros(1, 2, 4), torch.zeros(1, 1, 4)).item()  # one half in two bins: |0.5 - 1| in both
        0.25
    """

    def __init__(
        self,
        num_bins: int = 20,
        alpha: float = 1.0,
        empty_weight: float = 0.01,
        ignore_empty_classes: bool = True,
        **options: Unpack[Options],
    ) -> None:
        background = options.get("include_background", True)
        penalty = SoftBinnedError(num_bins, empty_weight, ignore_empty_classes, background)
        super().__init__(CrossEntropy(), penalty, alpha, **options)
