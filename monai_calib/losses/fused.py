"""Fast path: cross-entropy, penalty and their gradient in one compiled sweep over the logits, on the CPU.

The plain formulas of the other files read the logits a dozen times and write as many tensors of their size. Here the
logits are read once (:mod:`.fused_cpu`): maximum, exponentials, loss, penalty, and the gradient, which is all that is
kept for the backward pass; neighbours are counted on the way. Elsewhere the plain formulas run. Values agree with them
to rounding; a test holds the two together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from monai_calib.compiled import BLOCK, on_threads

from .arguments import one_of
from .fused_cpu import ENTROPY, MARGIN_L1, MARGIN_L2, NOTHING, PRIOR_L1, PRIOR_L2, SMOOTHING, sweep_planes
from .neighborhood_cpu import PADDING_NUMBERS

__all__ = [
    "ENTROPY",
    "MARGIN_L1",
    "MARGIN_L2",
    "NOTHING",
    "PRIOR_L1",
    "PRIOR_L2",
    "SMOOTHING",
    "Term",
    "can_sweep",
    "sweep",
    "using",
]

_plain = False


@contextmanager
def using(path: str) -> Iterator[None]:
    """Compute with the ``"plain"`` formulas, which can be differentiated twice, or ``"compiled"`` where that can be.

    Example:
        >>> from monai_calib.losses import build_loss
        >>> with using("plain"):
        ...     build_loss("nacl")(torch.zeros(1, 2, 8), torch.zeros(1, 1, 8)).item()
        0.7431...
    """
    global _plain
    before, _plain = _plain, one_of("path", path, ("compiled", "plain")) == "plain"
    try:
        yield
    finally:
        _plain = before


class Term(NamedTuple):
    """A penalty in the words of the compiled sweep.

    Attributes:
        kind: one of the names in capitals above.
        margin: of the margin penalties.
        counted: ``(window, padding)`` if the prior is the share of each class in a window, counted on the way.
        prior: otherwise the prior itself, float32 ``(B, K, *spatial)``.
    """

    kind: int
    margin: float = 0.0
    counted: tuple[tuple[int, ...], str] | None = None
    prior: Tensor | None = None


def can_sweep(logits: Tensor) -> bool:
    """Whether the sweep reads these logits: float32 on the CPU, no graph being traced, at least one voxel."""
    return (
        not _plain
        and logits.device.type == "cpu"
        and logits.dtype == torch.float32
        and logits.numel() > 0
        and logits.shape[1] < 255
        and not torch.compiler.is_compiling()
        and not torch._C._functorch.peek_interpreter_stack()
    )


def sweep(
    logits: Tensor,
    index: Tensor,
    term: Term,
    scale_ce: float,
    scale_penalty: float,
    mass_ce: Tensor | None,
    mass_penalty: Tensor | None,
    first_class: int,
    outer_only: bool,
) -> Tensor:
    """``scale_ce * sum_i mass_ce_i CE_i + scale_penalty * sum_ik mass_penalty_i penalty_ik`` with its gradient.

    Args:
        logits: float32 ``(B, K, *spatial)``.
        index: class numbers uint8 ``(B, *spatial)``.
        term: the penalty.
        scale_ce: factor of the cross-entropy, such as 1 / N.
        scale_penalty: factor of the penalty, such as alpha / (N K).
        mass_ce: float32 weight a voxel ``(B, *spatial)``; None for 1.
        mass_penalty: likewise for the penalty.
        first_class: 1 leaves the background out of the penalty.
        outer_only: keep the penalty where the counted window holds more than one label.
    """
    arguments = (index, term, scale_ce, scale_penalty, mass_ce, mass_penalty, first_class, outer_only)
    value: Tensor = _Sweep.apply(logits, arguments)
    return value


class _Sweep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, arguments: tuple[Any, ...]) -> Tensor:
        value, gradient = _run(logits.detach().contiguous(), ctx.needs_input_grad[0], *arguments)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return torch.as_tensor(value, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "The fast path keeps the loss's gradient, not its graph, and cannot be differentiated twice: compute "
                "the loss within monai_calib.losses.fused.using('plain')."
            )
        (gradient,) = ctx.saved_tensors
        # a look is free and spares a pass over the gradient
        return (gradient if bool(gradients[0] == 1) else gradient * gradients[0]), None


def _as_planes(sizes: Sequence[int]) -> tuple[int, int, int]:
    """Sizes along three axes, of which the first is walked plane by plane; of a 2D image a plane is a row."""
    if len(sizes) == 3:
        return sizes[0], sizes[1], sizes[2]
    return (sizes[0], 1, sizes[1]) if len(sizes) == 2 else (1, 1, sizes[0])


def _run(
    logits: Tensor,
    wanted: bool,
    index: Tensor,
    term: Term,
    scale_ce: float,
    scale_penalty: float,
    mass_ce: Tensor | None,
    mass_penalty: Tensor | None,
    first_class: int,
    outer_only: bool,
) -> tuple[float, Tensor | None]:
    gradient = torch.empty_like(logits) if wanted else None
    batch, classes, *spatial = logits.shape
    shape = _as_planes(spatial)
    sizes, padding = term.counted if term.counted is not None else ((1,) * len(spatial), "replicate")
    number = np.zeros(0, np.uint8 if math.prod(sizes) <= 255 else np.uint16)

    def by_class(x: Tensor | None) -> Any:
        return np.empty((1, 1, 0), np.float32) if x is None else x.contiguous().view(batch, classes, -1).numpy()

    def by_voxel(x: Tensor | None) -> Any:
        return np.empty((1, 0), np.float32) if x is None else x.contiguous().view(batch, -1).numpy()

    arrays = (
        by_class(logits),
        by_class(gradient),
        by_voxel(index),
        by_voxel(mass_ce),
        by_voxel(mass_penalty),
        by_class(term.prior),
    )
    settings = (term.kind, term.margin, scale_ce, scale_penalty, first_class, outer_only)
    walk = (shape, _as_planes(sizes), PADDING_NUMBERS[padding], term.counted is not None, number)
    depth, size = shape[0], shape[1] * shape[2]

    def planes(start: int, stop: int) -> tuple[float, float]:
        sums: tuple[float, float] = sweep_planes(start, stop, *arrays, *settings, *walk)
        return sums

    # a thread is worth its start for some ten thousand logits
    parts = on_threads(planes, batch * depth, smallest=max(1, 16 * BLOCK // (size * classes)), step=1)
    value = scale_ce * math.fsum(p[0] for p in parts) + scale_penalty * math.fsum(p[1] for p in parts)
    return value, gradient
