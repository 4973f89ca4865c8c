"""The head of every method that is linear in the logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["LinearHead"]


class LinearHead(nn.Module):
    """``weight @ logits + bias`` in every voxel: what :func:`~monai_calib.posthoc.folding.fold` can absorb.

    Args:
        weight: ``(K, K)``.
        bias: ``(K,)``.

    Example:
        >>> head = LinearHead(2 * torch.eye(2), torch.tensor([0.0, 1.0]))
        >>> head(torch.ones(1, 2, 1)).flatten().tolist()
        [2.0, 3.0]
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().float().clone())
        self.register_buffer("bias", bias.detach().float().clone())

    def forward(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """Calibrated logits ``(B, K, *spatial)``; the image is not read."""
        flat = torch.matmul(self.weight, logits.flatten(2)) + self.bias.unsqueeze(1)
        return flat.reshape(logits.shape)
