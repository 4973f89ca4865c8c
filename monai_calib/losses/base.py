"""All the composition there is: a primary objective plus a weighted penalty on the logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch
from monai.losses import DiceLoss
from torch import Tensor, nn

from . import fused, kernels
from .neighborhood import outer_voxels, window
from .semimetric import dice_semimetric
from .target import Target, plain, prepare

__all__ = ["ConstrainedLoss", "Options"]

REDUCTIONS = ("mean", "sum", "none")
REGIONS = ("all", "outer")


class Options(TypedDict, total=False):
    """The arguments every loss takes besides its own; :class:`ConstrainedLoss` explains them."""

    penalty_region: str
    include_background: bool
    ignore_index: int | None
    weight: Sequence[float] | Tensor | None
    reduction: str
    lambda_ce: float
    lambda_dice: float


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
        kernel_size: window that tells outer voxels, odd, one number or one per axis.
        include_background: whether class 0 takes part in the penalty and in Dice.
        ignore_index: label value left out of every term; as a neighbour it counts as no class.
        weight: one number per class for the primary, whose mean is divided by the summed weights of the voxels.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` (one value a voxel, ``(B, *spatial)``).
        lambda_ce: weight of the primary.
        lambda_dice: weight of the soft Dice loss (MONAI's, with softmax; on soft labels the Dice semimetric, which is
            the same on hard ones); 0 leaves it out.

    Shape: logits ``(B, K, *spatial)`` with one to three spatial axes; label ``(B, 1, *spatial)`` or ``(B, *spatial)``
    class numbers of any type, or one-hot or soft ``(B, K, *spatial)``; image ``(B, C, *spatial)``.
    Half-precision logits are computed in float32. A batch without a known voxel gives 0.

    Raises:
        ValueError: for arguments out of their range, and for a label that does not fit the logits; on a GPU a label
            out of range makes the loss NaN instead of making the host wait (see :func:`~.target.prepare`).

    Example:
        >>> from monai_calib.losses.cross_entropy import CrossEntropy
        >>> from monai_calib.losses.margin import MarginPenalty
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
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}.")
        if penalty_region not in REGIONS:
            raise ValueError(f"penalty_region must be one of {', '.join(REGIONS)}, got {penalty_region!r}.")
        if lambda_dice and reduction == "none":
            raise ValueError("Dice is one figure a class, not one a voxel: reduction='none' needs lambda_dice=0.")
        if isinstance(primary, ConstrainedLoss) and (primary.reduction, primary.ignore_index) != (
            reduction,
            ignore_index,
        ):
            raise ValueError("A loss and the loss it extends must agree on reduction and ignore_index.")
        window(kernel_size, 1 if isinstance(kernel_size, int) else len(kernel_size))
        for name, value in (("alpha", alpha), ("lambda_ce", lambda_ce), ("lambda_dice", lambda_dice)):
            if not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}.")
        self.primary = primary
        self.penalty = penalty
        self.alpha = alpha
        self.penalty_region = penalty_region
        self.kernel_size = kernel_size
        self.include_background = include_background
        self.ignore_index = ignore_index
        self.register_buffer("weight", None if weight is None else torch.as_tensor(weight, dtype=torch.float32))
        self.reduction = reduction
        self.lambda_ce = lambda_ce
        self.lambda_dice = lambda_dice
        self.dice = DiceLoss(include_background=include_background, reduction=reduction) if lambda_dice else None

    def forward(self, logits: Tensor, label: Tensor | Target, image: Tensor | None = None) -> Tensor:
        """The loss of a batch; ``label`` may be a :class:`~.target.Target` where a loss extends another."""
        outermost = not isinstance(label, Target)
        target = prepare(logits, label, self.ignore_index, image) if not isinstance(label, Target) else label
        logits = plain(logits)
        if logits.dtype not in (torch.float32, torch.float64):
            logits = logits.float()
        if target.valid is not None:
            # NaN or infinity under an ignored voxel must not leak, in the gradient neither
            logits = torch.where(target.valid.unsqueeze(1), logits, 0.0)
        if self.weight is not None and len(self.weight) != target.num_classes:
            raise ValueError(f"weight has {len(self.weight)} numbers for {target.num_classes} classes.")
        value, penalized = self._swept(logits, target)
        if value is None:
            value = self._primary(logits, target)
        if self.dice is not None:
            value = value + self.lambda_dice * self._dice(logits, target)
        if self.penalty is not None and not penalized:
            value = value + self.alpha * self._penalty(logits, target)
        return value if target.poison is None or not outermost else value + target.poison

    def _swept(self, logits: Tensor, target: Target) -> tuple[Tensor | None, bool]:
        """Primary and penalty in one sweep, and whether the penalty is in it.

        Swept is cross-entropy on class numbers, reduced to a mean or a sum, together with a penalty that puts itself in
        the words of a :class:`~.fused.Term`. None stands for a primary that has to be computed by its plain formula.
        """
        swept = getattr(self.primary, "compiled", False) is True
        if not (swept and fused.can_sweep(logits)) or target.soft is not None or self.reduction == "none":
            return None, False
        first_class = 0 if self.include_background else 1
        compiled = getattr(self.penalty, "compiled", None)
        term: fused.Term | None = None if compiled is None else compiled(logits, target)
        if term is None or (first_class and term.kind == kernels.ENTROPY):
            term, first_class = fused.Term(kernels.NOTHING), 0

        known = None if target.valid is None else target.valid.float()
        mass_ce, mass_penalty = known, known
        if self.weight is not None:
            mass_ce = self.weight[target.index.long()] if known is None else self.weight[target.index.long()] * known
        outer = self.penalty_region == "outer" and term.kind != kernels.NOTHING
        # with the border replicated, the counts themselves tell an outer voxel
        counted = outer and term.counted == (window(self.kernel_size, logits.ndim - 2), "replicate")
        if outer and not counted:
            mass_penalty = outer_voxels(target.marked, self.kernel_size, target.ignore).float()
            mass_penalty = mass_penalty if known is None else mass_penalty * known
        scale_ce = self.lambda_ce
        scale_penalty = self.alpha / (target.num_classes - first_class)
        if self.reduction == "mean":
            voxels = target.index.numel()
            scale_ce /= voxels if mass_ce is None else float(mass_ce.sum()) or 1.0
            scale_penalty /= voxels if known is None else float(known.sum()) or 1.0
        masses = (mass_ce, mass_penalty, first_class, counted)
        value = fused.sweep(logits, target.index, term, scale_ce, scale_penalty, *masses)
        return value, term.kind != kernels.NOTHING

    def _primary(self, logits: Tensor, target: Target) -> Tensor:
        if isinstance(self.primary, ConstrainedLoss):
            return self.lambda_ce * self.primary(logits, target)
        return self.lambda_ce * target.reduce(self.primary(logits, target), self.reduction, self.weight)

    def _penalty(self, logits: Tensor, target: Target) -> Tensor:
        assert self.penalty is not None
        excess = self.penalty(logits, target)
        if excess.ndim == 0:
            if self.reduction == "none":
                raise ValueError(f"{type(self.penalty).__name__} is one figure a batch: reduction='none' is undefined.")
            return excess
        if not self.include_background:
            excess = excess[:, 1:]
        voxels = excess.mean(1) if excess.shape[1] else excess.sum(1)
        if self.penalty_region == "outer":
            voxels = voxels * outer_voxels(target.marked, self.kernel_size, target.ignore)
        return target.reduce(voxels, self.reduction)

    def _dice(self, logits: Tensor, target: Target) -> Tensor:
        assert self.dice is not None
        prob = logits.softmax(1)
        if target.valid is not None:
            prob = torch.where(target.valid.unsqueeze(1), prob, 0.0)
        if prob.shape[0] == 0:
            return prob.sum()
        if target.soft is not None:
            first = 0 if self.include_background else 1
            rows = dice_semimetric(prob[:, first:], target.soft[:, first:].to(prob.dtype))
            return rows.mean() if self.reduction == "mean" else rows.sum()
        return self.dice(prob, target.one_hot(prob.dtype))

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, penalty_region={self.penalty_region!r}, lambda_dice={self.lambda_dice}"
