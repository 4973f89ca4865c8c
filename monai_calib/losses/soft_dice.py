"""Soft Dice loss of labels hard and soft: on soft ones the Dice semimetric, which is lowest at the label itself."""

from __future__ import annotations

from torch import Tensor, nn

from .target import Target

__all__ = ["SMOOTH", "SoftDice"]

SMOOTH = 1e-5
"""Added to both sides of the fraction, as in MONAI's ``DiceLoss``."""


class SoftDice(nn.Module):
    """Mean or sum over images and classes of ``1 - (sum s + sum y - sum |s - y| + e) / (sum s + sum y + e)``.

    ``s + y - |s - y|`` is ``2 s y`` where y is 0 or 1, the overlap of the soft Dice loss. For y between them the soft
    Dice loss is lowest at s = 0 or 1, and this one at s = y.

    Source: Wang et al., MICCAI 2023; https://arxiv.org/abs/2303.16296

    Example:
        >>> import torch
        >>> from monai_calib.losses.target import prepare
        >>> y = torch.tensor([[[0.6, 0.0], [0.4, 1.0]]])
        >>> logits = torch.tensor([[[50.0, 50.0], [0.0, 0.0]]])  # s = 1 for the first class
        >>> SoftDice(reduction="sum")(logits, prepare(logits, y)).item()  # 1 - 1.2 / 2.6 + 1 - 0 / 1.4
        1.5384...
    """

    def __init__(self, include_background: bool = True, reduction: str = "mean") -> None:
        super().__init__()
        self.include_background = include_background
        self.reduction = reduction

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        first = 0 if self.include_background else 1
        prob, truth = logits.softmax(1)[:, first:], target.one_hot(logits.dtype)[:, first:]
        if target.valid is not None:
            known = target.known(prob.dtype).unsqueeze(1)
            prob, truth = prob * known, truth * known
        prob, truth = prob.flatten(2), truth.flatten(2)
        both = prob.sum(2) + truth.sum(2)
        # of class numbers the product, which is the same and keeps a tensor less
        overlap = 2 * (prob * truth).sum(2) if target.soft is None else both - (prob - truth).abs().sum(2)
        rows = 1 - (overlap + SMOOTH) / (both + SMOOTH)
        return rows.sum() / (max(rows.numel(), 1) if self.reduction == "mean" else 1)
