"""The network's forward pass in training: one tensor or one list of heads, in bfloat16 where that is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from monai.inferers import Inferer

__all__ = ["TrainingInferer"]


class TrainingInferer(Inferer):
    """Whole patches through the network, as MONAI's ``SimpleInferer``, with two differences that training needs.

    *bfloat16 on any device.* MONAI's ``amp`` is float16 and for CUDA alone. ``bfloat16=True`` runs the network under
    autocast on the device of its input and hands float32 logits to the loss; bfloat16 has the range of float32, so no
    gradient is scaled. On a CPU with AMX a training step of the 3D bundle network takes half the time.

    *Heads of deep supervision as MONAI's ``DeepSupervisionLoss`` reads them.* ``DynUNet`` stacks its heads in one
    tensor ``(B, heads, K, *spatial)`` while it trains, ``BasicUNetPlusPlus`` returns a list even of one: the loss gets
    a list of ``(B, K, *spatial)``, finest first, or the tensor where there is one head.

    Args:
        bfloat16: whether to run the network under bfloat16 autocast.

    Shape: input ``(B, C, *spatial)``; returns ``(B, K, *spatial)`` in float32, or a list of them.
    Raises: ``TypeError`` for a network that returns neither a tensor nor a sequence of tensors.

    Example:
        >>> network = torch.nn.Conv2d(1, 3, kernel_size=1)
        >>> logits = TrainingInferer(bfloat16=True)(torch.ones(2, 1, 8, 8), network)
        >>> logits.shape, logits.dtype
        (torch.Size([2, 3, 8, 8]), torch.float32)
    """

    def __init__(self, bfloat16: bool = False) -> None:
        super().__init__()
        self.bfloat16 = bfloat16

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor | list[torch.Tensor]:
        # An outer autocast (MONAI's amp) stays as it is where bfloat16 is not asked for.
        with torch.autocast(inputs.device.type, torch.bfloat16) if self.bfloat16 else nullcontext():
            output = network(inputs, *args, **kwargs)
        heads = _heads(output, spatial_dims=inputs.ndim - 2)
        if self.bfloat16:
            heads = [head.float() for head in heads]
        return heads[0] if len(heads) == 1 else heads


def _heads(output: Any, spatial_dims: int) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return list(output.unbind(dim=1)) if output.ndim == spatial_dims + 3 else [output]
    if isinstance(output, Sequence) and output and all(isinstance(head, torch.Tensor) for head in output):
        return list(output)
    raise TypeError(f"network: expected a tensor of logits or a list of them, got {type(output).__name__}")
