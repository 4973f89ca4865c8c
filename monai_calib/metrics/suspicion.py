"""Input that passes every check on its values, and yet is almost surely not what was meant."""

from __future__ import annotations

import torch

from monai_calib.metrics.inputs import Activation
from monai_calib.metrics.sums import sum_tolerance

__all__ = ["looks_mistaken"]

_SLAB = {"cpu": 2**14}  # nearly always the first one is enough
_SLAB_ELSEWHERE = 2**18


def looks_mistaken(prediction: torch.Tensor, activation: Activation, from_logits: bool) -> torch.Tensor:
    """Whether all of a batch ``(B, K, N)`` looks like something else than ``from_logits`` says; a 0-d bool tensor.

    - Given as probabilities: every value is exactly 0 or 1, as after argmax and one-hot encoding.
    - Given as logits: every voxel's values lie in [0, 1] and sum to 1 (sigmoid: lie in [0, 1] and are not all 0), as
      after softmax.

    The mask plays no part: a saturated region is no mistake, a whole saturated volume is. On the CPU the first slab
    that clears the batch ends the search; on other devices everything is read, for a branch would wait for them.

    Example:
        >>> looks_mistaken(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), "softmax", from_logits=False)
        tensor(True)
        >>> looks_mistaken(torch.tensor([[[0.1, 1.0], [0.9, 0.0]]]), "softmax", from_logits=False)
        tensor(False)
    """
    batch, classes, voxels = prediction.shape
    device = prediction.device
    if prediction.numel() == 0:
        return torch.zeros((), dtype=torch.bool, device=device)
    step = max(1, _SLAB.get(device.type, _SLAB_ELSEWHERE) // classes)
    mistaken = torch.ones((), dtype=torch.bool, device=device)
    nonzero = torch.full((), activation == "softmax" or not from_logits, dtype=torch.bool, device=device)
    tolerance = sum_tolerance(prediction.dtype)
    for b in range(batch):
        for start in range(0, voxels, step):
            x = prediction[b, :, start : start + step].float()
            if not from_logits:
                mistaken &= ((x == 0) | (x == 1)).all()
            else:
                mistaken &= ((x >= 0) & (x <= 1)).all()
                if activation == "softmax":
                    mistaken &= ((x.sum(0) - 1).abs() <= tolerance).all()
                nonzero |= (x != 0).any()
            if device.type == "cpu" and not mistaken:
                return mistaken
    return mistaken & nonzero
