"""The Dice semimetric: the soft Dice loss on hard labels, and lowest at the label itself on soft ones."""

from __future__ import annotations

from torch import Tensor

__all__ = ["SMOOTH", "dice_semimetric"]

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
    prob, truth = prob.flatten(2), truth.flatten(2)
    if weight is not None:
        mass = weight.flatten(1).unsqueeze(1)
        prob, truth = prob * mass, truth * mass
    both = prob.sum(2) + truth.sum(2)
    return 1 - (both - (prob - truth).abs().sum(2) + SMOOTH) / (both + SMOOTH)
