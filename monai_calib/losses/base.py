"""Composition of every loss: a primary objective plus a weighted penalty on the logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypedDict

import torch
from torch import Tensor, nn

from . import fused
from .arguments import at_least, one_of
from .soft_dice import SoftDice
from .target import Target, prepare, readable
from .window import window

__all__ = ["ConstrainedLoss", "Options", "SharedOptions", "StatisticLoss"]

REDUCTIONS = ("mean", "sum", "none")
REGIONS = ("all", "outer")


class SharedOptions(TypedDict, total=False):
    """Arguments that every loss takes besides its own; :class:`ConstrainedLoss` explains them."""

    penalty_region: str
    include_background: bool
    ignore_index: int | None
    weight: Sequence[float] | Tensor | None
    reduction: str
    lambda_ce: float
    lambda_dice: float
    dice_surgery: bool
    dice_fades: float


class Options(SharedOptions, total=False):
    """The window of ``penalty_region="outer"`` besides, which a loss that reads a neighbourhood names among its own."""

    kernel_size: int | Sequence[int]


class ConstrainedLoss(nn.Module):
    """A primary objective plus ``alpha`` times the mean of a penalty over voxels and classes.

    ``lambda_ce * primary + lambda_dice * Dice + alpha * mean_{N,K} penalty``. Every loss of this package is one of
    these with its own primary or penalty.

    Args:
        primary: maps ``(logits, Target)`` to one loss a voxel ``(B, *spatial)``; or another ``ConstrainedLoss``, to
            which this one adds a penalty.
        penalty: maps ``(logits, Target)`` to ``(B, K, *spatial)``, or to a scalar for statistics of the whole batch.
        alpha: weight of the penalty. The papers write a sum over classes; like their code, this is a mean. It may be
            changed between steps (:class:`~monai_calib.handlers.AlphaSchedule`).
        penalty_region: ``"all"`` voxels (the papers), or ``"outer"``: only those whose neighbourhood holds more than
            one label; the sum is still divided by all voxels and classes.
        kernel_size: window that tells outer voxels, odd, one number or one per axis; of a loss that reads a
            neighbourhood (NACL, SVLS, CRaC) also the window of that.
        include_background: whether class 0 takes part in the penalty and in Dice.
        ignore_index: label value left out of every term; as a neighbour it counts as no class.
        weight: one number per class for the primary, whose mean is divided by the summed weights of the voxels.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` (one value a voxel, ``(B, *spatial)``).
        lambda_ce: weight of the primary.
        lambda_dice: weight of the soft Dice loss (MONAI's, with softmax; on soft labels the Dice semimetric, which is
            the same on hard ones); 0 leaves it out.
        dice_surgery: whether the derivative of Dice by a probability is multiplied by its error, which takes away most
            of the over-confidence that Dice brings (:class:`~.soft_dice.SoftDice`).
        dice_fades: share of the training over which the weight of Dice falls to 0, of 1,000 steps at least; 0 for
            never. The loss has to be told how far the training is: :class:`~monai_calib.handlers.FadingDice`, or
            :func:`~.soft_dice.fade_dice` in a loop of your own.

    Shape: logits ``(B, K, *spatial)`` with one to three spatial axes; label ``(B, 1, *spatial)`` or ``(B, *spatial)``
    class numbers of any type, or one-hot or soft ``(B, K, *spatial)``; image ``(B, C, *spatial)``.
    Half-precision logits are computed in float32. A batch without a known voxel gives 0.

    Attributes:
        needs_image: whether :meth:`forward` has to be given the image, which is so if the primary or the penalty has
            an attribute of this name that is true. A trainer reads it
            (:class:`~monai_calib.inferers.LossOfHeads`).

    Raises:
        ValueError: for arguments out of their range, and for a label that does not fit the logits; on a GPU a label
            out of range makes the loss NaN instead of making the host wait (see :func:`~.target.prepare`).

    Example:
        >>> from monai_calib.losses.cross_entropy import CrossEntropy
        >>> from monai_calib.losses.mbls import MarginPenalty
        >>> loss = ConstrainedLoss(CrossEntropy(), MarginPenalty(margin=0.0), alpha=0.1)
        >>> loss(torch.tensor([[[2.0], [0.0]]]), torch.zeros(1, 1, 1)).item()  # 0.1269 + 0.1 * (0 + 2) / 2
        0.2269...
    """

    weight: Tensor | None
    reduction: str
    ignore_index: int | None

    def __init__(
        self,
        primary: nn.Module,
        penalty: nn.Module | None = None,
        alpha: float = 0.1,
        penalty_region: str = "all",
        kernel_size: int | Sequence[int] = 3,
        include_background: bool = True,
        ignore_index: int | None = None,
        weight: Sequence[float] | Tensor | None = None,
        reduction: str = "mean",
        lambda_ce: float = 1.0,
        lambda_dice: float = 0.0,
        dice_surgery: bool = False,
        dice_fades: float = 0.0,
    ) -> None:
        super().__init__()
        if lambda_dice and reduction == "none":
            raise ValueError(
                "reduction: expected 'mean' or 'sum' beside Dice, one number a class, got 'none'. Leave Dice out."
            )
        if isinstance(primary, ConstrainedLoss) and (primary.reduction, primary.ignore_index) != (
            reduction,
            ignore_index,
        ):
            raise ValueError("A loss and the loss it extends must agree on reduction and ignore_index.")
        window(kernel_size, 1 if isinstance(kernel_size, int) else len(kernel_size))
        self.primary = primary
        self.penalty = penalty
        self.alpha = at_least("alpha", alpha, 0)
        self.penalty_region = one_of("penalty_region", penalty_region, REGIONS)
        self.kernel_size = kernel_size
        self.include_background = include_background
        self.ignore_index = ignore_index
        self.register_buffer("weight", None if weight is None else torch.as_tensor(weight, dtype=torch.float32))
        self.reduction = one_of("reduction", reduction, REDUCTIONS)
        self.lambda_ce = at_least("lambda_ce", lambda_ce, 0)
        if at_least("dice_fades", dice_fades, 0) > 1:
            raise ValueError(f"dice_fades: expected a share of the training, 0 to 1, got {dice_fades}.")
        self.lambda_dice = at_least("lambda_dice", lambda_dice, 0)
        self.dice = SoftDice(include_background, reduction, dice_surgery, dice_fades) if lambda_dice else None

    @property
    def needs_image(self) -> bool:
        return any(getattr(term, "needs_image", False) for term in (self.primary, self.penalty))

    def forward(self, logits: Tensor, label: Tensor | Target, image: Tensor | None = None) -> Tensor:
        """The loss of a batch; ``label`` may be a :class:`~.target.Target` where a loss extends another."""
        target = label if isinstance(label, Target) else prepare(logits, label, self.ignore_index, image)
        if self.weight is not None and len(self.weight) != target.num_classes:
            raise ValueError(f"weight: expected {target.num_classes} numbers, one a class, got {len(self.weight)}.")
        logits = readable(logits, target)
        term = self._swept_term(logits, target)
        if term is None:
            value = self.lambda_ce * self._primary(logits, target)
        else:
            value = self._sweep(logits, target, term)
        if self.dice is not None:
            value = value + self.lambda_dice * self.dice(logits, target)
        if self.penalty is not None and (term is None or term.kind == fused.NOTHING):
            value = value + self.alpha * self._penalty(logits, target)
        return value if target.poison is None or target is label else value + target.poison

    def _swept_term(self, logits: Tensor, target: Target) -> fused.Term | None:
        """The penalty as the compiled sweep computes it beside cross-entropy; None where both take the plain formula.

        Swept is cross-entropy on class numbers, reduced to a mean or a sum. ``NOTHING`` stands for a penalty that the
        sweep does not know.
        """
        swept = getattr(self.primary, "compiled", False) is True
        if not (swept and fused.can_sweep(logits)) or target.soft is not None or self.reduction == "none":
            return None
        compiled = getattr(self.penalty, "compiled", None)
        term: fused.Term | None = None if compiled is None else compiled(logits, target)
        if term is None or (term.kind == fused.ENTROPY and not self.include_background):
            return fused.Term(fused.NOTHING)
        return term

    def _sweep(self, logits: Tensor, target: Target, term: fused.Term) -> Tensor:
        """``lambda_ce * primary + alpha * penalty`` in one sweep."""
        known = None if target.valid is None else target.known(torch.float32)
        mass_ce = mass_penalty = known
        if self.weight is not None:
            mass_ce = self.weight[target.index.long()] * target.known(torch.float32)
        # with the border replicated, the counts themselves tell an outer voxel
        outer = self.penalty_region == "outer"
        counted = outer and term.counted == (window(self.kernel_size, logits.ndim - 2), "replicate")
        if outer and not counted and term.kind != fused.NOTHING:
            mass_penalty = target.outer(self.kernel_size) * target.known(torch.float32)
        first_class = 0 if self.include_background else 1
        scale_ce, scale_penalty = self.lambda_ce, self.alpha / (target.num_classes - first_class)
        if self.reduction == "mean":
            voxels = target.index.numel()
            scale_ce /= voxels if mass_ce is None else float(mass_ce.sum()) or 1.0
            scale_penalty /= voxels if known is None else float(known.sum()) or 1.0
        masses = (mass_ce, mass_penalty, first_class, counted)
        return fused.sweep(logits, target.index, term, scale_ce, scale_penalty, *masses)

    def _primary(self, logits: Tensor, target: Target) -> Tensor:
        value: Tensor = self.primary(logits, target)
        extends = isinstance(self.primary, ConstrainedLoss)
        return value if extends else target.reduce(value, self.reduction, self.weight)

    def _penalty(self, logits: Tensor, target: Target) -> Tensor:
        assert self.penalty is not None
        excess: Tensor = self.penalty(logits, target)
        if excess.ndim == 0:
            if self.reduction == "none":
                what = type(self.penalty).__name__
                raise ValueError(f"reduction: expected 'mean' or 'sum' of {what}, one number a batch, got 'none'.")
            return excess
        if not self.include_background:
            excess = excess[:, 1:]
        voxels = excess.mean(1) if excess.shape[1] else excess.sum(1)
        if self.penalty_region == "outer":
            voxels = voxels * target.outer(self.kernel_size)
        return target.reduce(voxels, self.reduction)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, penalty_region={self.penalty_region!r}, lambda_dice={self.lambda_dice}"


class StatisticLoss(ConstrainedLoss):
    """A primary objective plus ``alpha`` times one number of the whole batch, such as a binned calibration error.

    ``penalty_region="outer"`` takes the number over the outer voxels only. ``reduction="none"`` is an error, and
    ``"sum"`` adds it once.
    """

    def _penalty(self, logits: Tensor, target: Target) -> Tensor:
        if self.penalty_region == "outer":
            outer = target.outer(self.kernel_size)
            target = replace(target, valid=outer if target.valid is None else target.valid & outer)
        return super()._penalty(logits, target)
