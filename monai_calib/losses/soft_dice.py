"""Soft Dice loss of labels hard and soft: on soft ones the Dice semimetric, which is lowest at the label itself."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from .target import Target

__all__ = ["LEAST_STEPS", "SMOOTH", "SoftDice", "fade_dice"]

LEAST_STEPS = 1000
"""Steps over which a Dice fades at least, or else over the whole training: in fewer it finds too little."""

SMOOTH = 1e-5
"""Added to both sides of the fraction, as in MONAI's ``DiceLoss``."""


class _Surgery(torch.autograd.Function):
    """The probabilities; on the way back their gradient is multiplied by ``|prob - truth|``."""

    @staticmethod
    def forward(ctx: Any, prob: Tensor, truth: Tensor) -> Tensor:
        ctx.save_for_backward((prob - truth).abs_())
        return prob.view_as(prob)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.saved_tensors[0], None


class SoftDice(nn.Module):
    """Mean or sum over images and classes of ``1 - (sum s + sum y - sum |s - y| + e) / (sum s + sum y + e)``.

    ``s + y - |s - y|`` is ``2 s y`` where y is 0 or 1, the overlap of the soft Dice loss. For y between them the soft
    Dice loss is lowest at s = 0 or 1, and this one at s = y.

    With ``surgery`` the derivative by s is multiplied by |s - y|, the error of the prediction; the value stays. Dice
    pulls at a voxel with the same force however right it is already, which ends in over-confidence. With the factor the
    forces on a voxel whose class has probability q are in balance at ``s / (1 - s) = (2 - D) / D * q / (1 - q)``, D the
    Dice of its class: near q where D is near 1, as with the Brier score, and still weighted by the size of the class.
    What is followed is no longer the gradient of any loss.

    With ``fades``, a share of the training, the whole is multiplied by a weight that :func:`fade_dice` lets fall from 1
    to 0: Dice finds the structures, and what it is joined to has the last word on confidence.

    Attributes:
        weight: what the loss is multiplied by, a buffer, if Dice fades.

    Source: Wang et al., MICCAI 2023; https://arxiv.org/abs/2303.16296. Surgery: Lux et al., MIDL 2026, PMLR
    315:3397-3423, from its abstract ("a factor to the loss's partial derivative", linear in the prediction error).

    Example:
        >>> import torch
        >>> from monai_calib.losses.target import prepare
        >>> y = torch.tensor([[[0.6, 0.0], [0.4, 1.0]]])
        >>> logits = torch.tensor([[[50.0, 50.0], [0.0, 0.0]]])  # s = 1 for the first class
        >>> SoftDice(reduction="sum")(logits, prepare(logits, y)).item()  # 1 - 1.2 / 2.6 + 1 - 0 / 1.4
        1.5384...
    """

    weight: Tensor

    def __init__(
        self, include_background: bool = True, reduction: str = "mean", surgery: bool = False, fades: float = 0.0
    ) -> None:
        super().__init__()
        self.surgery = surgery
        self.fades = fades
        self.told = False
        if fades:
            self.register_buffer("weight", torch.ones(()))
        self.include_background = include_background
        self.reduction = reduction

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        if self.fades and not self.told:
            self._say_that_nobody_told()
        first = 0 if self.include_background else 1
        prob, truth = logits.softmax(1)[:, first:], target.one_hot(logits.dtype)[:, first:]
        if target.valid is not None:
            known = target.known(prob.dtype).unsqueeze(1)
            prob, truth = prob * known, truth * known
        if self.surgery:
            prob = _Surgery.apply(prob, truth)
        prob, truth = prob.flatten(2), truth.flatten(2)
        both = prob.sum(2) + truth.sum(2)
        # of class numbers the product, which is the same and keeps a tensor less
        overlap = 2 * (prob * truth).sum(2) if target.soft is None else both - (prob - truth).abs().sum(2)
        rows = 1 - (overlap + SMOOTH) / (both + SMOOTH)
        value = rows.sum() / (max(rows.numel(), 1) if self.reduction == "mean" else 1)
        return value * self.weight.to(value) if self.fades else value

    def _say_that_nobody_told(self) -> None:
        """Warn once, in a training, that Dice will not fade."""
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self.told = True
            warnings.warn(
                "This loss has a Dice that fades, and nothing says how far the training is: it will not fade. List "
                "monai_calib.handlers.FadingDice among the trainer's handlers (bundles made before 0.2 lack it: make "
                "yours again), or call monai_calib.losses.fade_dice(loss, epoch / epochs) at each epoch.",
                stacklevel=2,
            )


def fade_dice(loss: nn.Module, progress: float, steps: int | None = None) -> None:
    """Tell a loss how far the training is; one without a Dice that fades is left alone.

    The weight of Dice is ``max(0, 1 - progress / fades)``, ``fades`` the share of the training that the loss was built
    with, and the whole training where ``fades`` of it are less than :data:`LEAST_STEPS` steps; between the two, that
    many steps.

    Args:
        loss: alone or inside others.
        progress: share of the training that is done; below 0 counts as 0, above 1 as 1.
        steps: how many steps the whole training has; without it, as many as it takes.

    Example:
        >>> from monai_calib.losses import build_loss
        >>> loss = build_loss("dice_ce", lambda_ce=0.0, dice_fades=1.0)
        >>> logits, label = torch.zeros(1, 2, 4), torch.zeros(1, 1, 4)
        >>> for epoch in range(3):
        ...     fade_dice(loss, epoch / 3)
        ...     print(round(loss(logits, label).item(), 3))
        0.667
        0.444
        0.222
    """
    for part in loss.modules():
        if isinstance(part, SoftDice) and part.fades:
            part.told = True
            fades = max(part.fades, min(LEAST_STEPS / steps, 1.0)) if steps else part.fades
            part.weight.fill_(min(max(1 - progress / fades, 0.0), 1.0))
