"""Smoothed labels: uniformly (label smoothing) and by the labels around (SVLS)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from . import fused, kernels
from .base import ConstrainedLoss, Options
from .cross_entropy import CrossEntropy
from .neighborhood import PADDINGS, label_proportions
from .target import Target

__all__ = ["LabelSmoothingLoss", "SVLSLoss", "SmoothingPenalty", "SpatiallyVaryingCrossEntropy"]


class SmoothingPenalty(nn.Module):
    """``l_y - l_k`` for every class: what uniform label smoothing adds to cross-entropy.

    ``(1 - alpha) CE + alpha mean_k(-log s_k) = CE + alpha mean_k(l_y - l_k)``, since the log-partition cancels: label
    smoothing pulls every logit towards the true one, with the same force at any distance.
    """

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        return target.at_label(logits).unsqueeze(1) - logits

    def compiled(self, logits: Tensor, target: Target) -> fused.Term:
        """This penalty for the compiled sweep."""
        return fused.Term(kernels.SMOOTHING)


class LabelSmoothingLoss(ConstrainedLoss):
    """Cross-entropy against labels mixed with the uniform distribution.

    ``(1 - alpha) CE + alpha mean_k(-log softmax(l)_k)``, the true class included in the uniform part. With
    ``weight`` a voxel weighs what its label does; ``torch.nn.functional.cross_entropy(weight=w, label_smoothing=a)``
    weighs the uniform part class by class, which is another loss.

    Args:
        alpha: share of the uniform distribution, 0 to 1.
        kernel_size: window that tells outer voxels, read with ``penalty_region="outer"`` only.
        options: the arguments of :class:`ConstrainedLoss`.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``; returns a scalar, or ``(B, *spatial)`` with
    ``reduction="none"``.
    Raises: ``ValueError`` if ``alpha`` is not within 0 to 1.
    Source: Szegedy et al., CVPR 2016; https://arxiv.org/abs/1512.00567

    Example:
        >>> import torch
        >>> loss = LabelSmoothingLoss(alpha=0.1)
        >>> logits, label = torch.tensor([[[2.0], [0.0]]]), torch.zeros(1, 1, 1)
        >>> loss(logits, label).item()  # 0.1269 + 0.1 * (0 + 2) / 2
        0.2269...
    """

    def __init__(self, alpha: float = 0.1, kernel_size: int | Sequence[int] = 3, **options: Unpack[Options]) -> None:
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is a share of the label and must be within 0 to 1, got {alpha}.")
        super().__init__(CrossEntropy(), SmoothingPenalty(), alpha, kernel_size=kernel_size, **options)


class SpatiallyVaryingCrossEntropy(nn.Module):
    """``-sum_k t_k log softmax(l)_k`` with t half the voxel's own label, half the Gaussian mean of its neighbours'."""

    def __init__(
        self,
        sigma: float | Sequence[float] = 1.0,
        kernel_size: int | Sequence[int] = 3,
        padding: str = "replicate",
    ) -> None:
        super().__init__()
        if padding not in PADDINGS:
            raise ValueError(f"padding must be one of {', '.join(PADDINGS)}, got {padding!r}.")
        self.sigma = sigma
        self.kernel_size = kernel_size
        self.padding = padding

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        label = target.marked if target.soft is None else target.soft
        smooth = label_proportions(
            label,
            target.num_classes,
            "gaussian",
            self.kernel_size,
            self.sigma,
            self.padding,
            ignore=target.ignore,
            dtype=logits.dtype,
        )
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
        **options: Unpack[Options],
    ) -> None:
        primary = SpatiallyVaryingCrossEntropy(sigma, kernel_size, padding)
        super().__init__(primary, kernel_size=kernel_size, **options)
