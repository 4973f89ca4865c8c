"""SVLS: labels smoothed by the labels around them."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from .arguments import one_of
from .base import ConstrainedLoss, SharedOptions
from .neighborhood import PADDINGS
from .target import Target

__all__ = ["SVLSLoss", "SpatiallyVaryingCrossEntropy"]


class SpatiallyVaryingCrossEntropy(nn.Module):
    """``-sum_k t_k log softmax(l)_k`` with t half the voxel's own label, half the Gaussian mean of its neighbours'."""

    def __init__(
        self,
        sigma: float | Sequence[float] = 1.0,
        kernel_size: int | Sequence[int] = 3,
        padding: str = "replicate",
    ) -> None:
        super().__init__()
        self.sigma = sigma
        self.kernel_size = kernel_size
        self.padding = one_of("padding", padding, PADDINGS)

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        smooth = target.proportions(logits.dtype, "gaussian", self.kernel_size, self.sigma, self.padding)
        return F.cross_entropy(logits, smooth, reduction="none")


class SVLSLoss(ConstrainedLoss):
    """Cross-entropy against labels smoothed by the labels around them (SVLS).

    ``-sum_k t_k log softmax(l)_k``, t the ``"gaussian"`` proportions of
    :func:`~monai_calib.losses.neighborhood.label_proportions`: half the voxel's own label, half the Gaussian mean of
    its neighbours, whatever sigma. Away from label changes it is plain cross-entropy.

    Args:
        sigma: of the Gaussian, in voxels, one number or one per axis.
        kernel_size: odd window in voxels, one number or one per axis.
        padding: what lies outside the image; the authors replicate the border.
        options: the arguments of :class:`ConstrainedLoss`.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``; returns a scalar, or ``(B, *spatial)`` with
    ``reduction="none"``.
    Raises: ``ValueError`` for an even or non-positive window, a window of one voxel, a non-positive sigma.
    Source: Islam and Glocker, IPMI 2021; https://arxiv.org/abs/2104.05788

    Example:
        >>> import torch
        >>> loss = SVLSLoss(sigma=1.0)
        >>> loss(torch.zeros(1, 2, 4, 4, 4), torch.ones(1, 1, 4, 4, 4)).item()  # one label all around: log 2
        0.6931...
    """

    def __init__(
        self,
        sigma: float | Sequence[float] = 1.0,
        kernel_size: int | Sequence[int] = 3,
        padding: str = "replicate",
        **options: Unpack[SharedOptions],
    ) -> None:
        primary = SpatiallyVaryingCrossEntropy(sigma, kernel_size, padding)
        super().__init__(primary, kernel_size=kernel_size, **options)
