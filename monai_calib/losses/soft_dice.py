"""Soft Dice loss of labels hard and soft: on soft ones the Dice semimetric, which is lowest at the label itself."""

from __future__ import annotations

from torch import Tensor, nn

from .target import Target

__all__ = ["SMOOTH", "SoftDice", "dice_semimetric"]

SMOOTH = 1e-5
"""Added to both sides of the fraction, as in MONAI's ``DiceLoss``."""


def dice_semimetric(prob: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """One value per image and class, ``(B, K)``: ``1 - (sum s + sum y - sum |s - y| + e) / (sum s + sum y + e)``.

    ``s + y - |s - y|`` is ``2 s y`` where y is 0 or 1, the overlap of the soft Dice loss. For y between them the soft
    Dice loss is lowest at s = 0 or 1, and this one at s = y.

    Args:
        prob: s, ``(B, K, *spatial)``.
        truth: y, likewise, from 0 to 1.
        weight: ``(B, *spatial)``, 0 where a voxel does not count.

    Source: Wang et al., MICCAI 2023; https://arxiv.org/abs/2303.16296

    Example:
        >>> import torch
        >>> y = torch.tensor([[[0.6, 0.0]]])
        >>> dice_semimetric(y, y).item(), round(dice_semimetric(torch.ones(1, 1, 2), y).item(), 4)  # 1 - 1.2 / 2.6
        (0.0, 0.5385)
    """
    if weight is not None:
        prob, truth = prob * weight.unsqueeze(1), truth * weight.unsqueeze(1)
    prob, truth = prob.flatten(2), truth.flatten(2)
    both = prob.sum(2) + truth.sum(2)
    return 1 - (both - (prob - truth).abs().sum(2) + SMOOTH) / (both + SMOOTH)


class SoftDice(nn.Module):
    """Mean or sum over images and classes of :func:`dice_semimetric`, which is the soft Dice loss on hard labels."""

    def __init__(self, include_background: bool = True, reduction: str = "mean") -> None:
        super().__init__()
        self.include_background = include_background
        self.reduction = reduction

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        first = 0 if self.include_background else 1
        prob, truth = logits.softmax(1)[:, first:], target.one_hot(logits.dtype)[:, first:]
        rows = dice_semimetric(prob, truth, None if target.valid is None else target.known(prob.dtype))
        return rows.sum() / (max(rows.numel(), 1) if self.reduction == "mean" else 1)
