"""NACL: the logits follow the label proportions of the neighbourhood."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from typing_extensions import Unpack

from . import fused
from .arguments import one_of
from .base import ConstrainedLoss, SharedOptions
from .cross_entropy import CrossEntropy
from .mbls import DISTANCES
from .neighborhood import IMAGE_GUIDED, KERNEL_OPS, PADDINGS
from .target import Target
from .window import window

__all__ = ["NACLLoss", "NeighborhoodPenalty"]

MATCHINGS = ("logits", "softmax")


class NeighborhoodPenalty(nn.Module):
    """Distance of the logits (or of their softmax) from the label proportions around each voxel, for every class."""

    def __init__(
        self,
        kernel_ops: str = "mean",
        kernel_size: int | Sequence[int] = 3,
        distance_type: str = "l1",
        sigma: float | Sequence[float] = 1.0,
        padding: str = "replicate",
        matching: str = "logits",
    ) -> None:
        super().__init__()
        self.kernel_ops = one_of("kernel_ops", kernel_ops, KERNEL_OPS)
        self.kernel_size = kernel_size
        self.distance_type = one_of("distance_type", distance_type, DISTANCES)
        self.sigma = sigma
        self.padding = one_of("padding", padding, PADDINGS)
        self.matching = one_of("matching", matching, MATCHINGS)
        self.needs_image = kernel_ops in IMAGE_GUIDED

    def proportions(self, logits: Tensor, target: Target) -> Tensor:
        """The label proportions the logits are held to, ``(B, K, *spatial)``."""
        return target.proportions(logits.dtype, self.kernel_ops, self.kernel_size, self.sigma, self.padding)

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        matched = logits if self.matching == "logits" else logits.softmax(1)
        distance = self.proportions(logits, target) - matched
        return distance.abs() if self.distance_type == "l1" else distance * distance

    def compiled(self, logits: Tensor, target: Target) -> fused.Term | None:
        """This penalty for the compiled sweep, which counts neighbours itself where every window is complete."""
        if self.matching == "softmax":
            return None
        kind = fused.PRIOR_L1 if self.distance_type == "l1" else fused.PRIOR_L2
        if self.kernel_ops == "mean" and self.padding != "valid" and target.valid is None:
            return fused.Term(kind, counted=(window(self.kernel_size, logits.ndim - 2), self.padding))
        return fused.Term(kind, prior=self.proportions(logits, target))


class NACLLoss(ConstrainedLoss):
    """Cross-entropy with logits that follow the label proportions of their neighbourhood (NACL).

    Where the annotator changed from one label to another nearby, the network may be unsure too:
    ``CE + alpha * mean(|tau_k - l_k|)`` over voxels and classes, tau from
    :func:`~monai_calib.losses.neighborhood.label_proportions`.
    At its optimum a free voxel has probability ``1 - alpha / K`` for its label (L1): the penalty caps confidence
    everywhere, easy background included. ``penalty_region="outer"`` keeps it where labels meet.

    Args:
        kernel_ops: how neighbours are summed up: ``"mean"`` (the paper's best), ``"gaussian"`` (the SVLS kernel),
            ``"mode"``, ``"median"``, ``"max"``, ``"min"``, ``"image_proportions_l1"`` or ``"image_proportions_l2"``
            (with these two ``needs_image`` is true).
        kernel_size: odd window in voxels, one number or one per axis (thick slices: ``(3, 3, 1)``).
        distance_type: ``"l1"`` absolute or ``"l2"`` squared distance.
        alpha: weight of the penalty, a mean over voxels and classes as in the authors' code.
        sigma: of the gaussian prior, in voxels, one number or one per axis.
        padding: what lies outside the image: ``"replicate"``, ``"valid"``, ``"background"`` (the authors' code) or
            ``"zeros"`` (MONAI's ``NACLLoss``).
        matching: ``"logits"`` (the paper) or ``"softmax"``: what is held to tau.
        options: the arguments of :class:`ConstrainedLoss`.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``; returns a scalar, or ``(B, *spatial)`` with
    ``reduction="none"``.
    Raises: ``ValueError`` for an unknown name, an even or non-positive window, a missing image.
    Source: Murugesan et al., MICCAI 2023; https://arxiv.org/abs/2303.06268

    Example:
        >>> import torch
        >>> loss = NACLLoss(kernel_size=3, alpha=0.1)
        >>> loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4)).item()  # log 2 + 0.1 * (|1 - 0| + |0 - 0|) / 2
        0.7431...
    """

    def __init__(
        self,
        kernel_ops: str = "mean",
        kernel_size: int | Sequence[int] = 3,
        distance_type: str = "l1",
        alpha: float = 0.1,
        sigma: float | Sequence[float] = 1.0,
        padding: str = "replicate",
        matching: str = "logits",
        **options: Unpack[SharedOptions],
    ) -> None:
        penalty = NeighborhoodPenalty(kernel_ops, kernel_size, distance_type, sigma, padding, matching)
        super().__init__(CrossEntropy(), penalty, alpha, kernel_size=kernel_size, **options)
