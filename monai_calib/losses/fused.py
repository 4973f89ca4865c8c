"""The fast path: cross-entropy, penalty and their gradient in one sweep over the logits, compiled, on the CPU.

The plain formulas of the other files read the logits a dozen times and write as many tensors of their size. Here a
plane of voxels is counted (how many neighbours have which label: integers, running sums along each axis) and, while
the counts are in the cache, read once: maximum, exponentials, loss, penalty, and the gradient, which is all that is
kept for the backward pass. Figures agree with the plain formulas to rounding; a test holds the two together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from monai_calib.compiled import BLOCK, on_threads

from .kernels import ENTROPY, NOTHING, sweep_planes
from .neighborhood import outer_voxels, window

if TYPE_CHECKING:
    from .base import ConstrainedLoss
    from .target import Target

__all__ = ["Term", "disabled", "evaluate", "sweep"]

_OUTSIDE = {"replicate": 0, "background": 1, "zeros": 2}

_enabled = True


@contextmanager
def disabled() -> Iterator[None]:
    """Compute with the plain formulas, which can be differentiated twice.

    Example:
        >>> from monai_calib.losses import build_loss
        >>> with disabled():
        ...     build_loss("nacl")(torch.zeros(1, 2, 8), torch.zeros(1, 1, 8)).item()
        0.7431...
    """
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


class Term(NamedTuple):
    """A penalty in the words of the compiled sweep.

    Attributes:
        kind: one of the constants of :mod:`.kernels`.
        margin: of the margin penalties.
        counted: ``(window, padding)`` if the prior is the share of each class in a window, counted on the way.
        prior: otherwise the prior itself, float32 ``(B, K, *spatial)``.
    """

    kind: int
    margin: float = 0.0
    counted: tuple[tuple[int, ...], str] | None = None
    prior: Tensor | None = None


def _readable(logits: Tensor) -> bool:
    """Whether the compiled sweep can read these logits: float32 on the CPU, in eager mode, with voxels in it."""
    return (
        not torch.compiler.is_compiling()
        and _enabled
        and logits.device.type == "cpu"
        and logits.dtype == torch.float32
        and logits.numel() > 0
        and logits.shape[1] < 255
        and not torch._C._functorch.peek_interpreter_stack()
    )


def evaluate(loss: ConstrainedLoss, logits: Tensor, target: Target) -> Tensor | None:
    """Primary and penalty of ``loss`` in one sweep, or None where the plain formulas have to be used.

    Covered are cross-entropy, alone or with a penalty that puts itself in the words of a :class:`Term`, on class
    numbers, reduced to a mean or a sum.
    """
    primary = getattr(loss.primary, "compiled", False) is True
    if not primary or target.soft is not None or loss.reduction == "none" or not _readable(logits):
        return None
    term: Term | None = Term(NOTHING)
    first_class = 0
    if loss.penalty is not None:
        compiled = getattr(loss.penalty, "compiled", None)
        term = None if compiled is None else compiled(logits, target)
        first_class = 0 if loss.include_background else 1
    if term is None or (first_class and (term.kind == ENTROPY or target.num_classes == 1)):
        return None

    known = None if target.valid is None else target.valid.float()
    mass_ce, mass_penalty = known, known
    if loss.weight is not None:
        mass_ce = loss.weight[target.index.long()] if known is None else loss.weight[target.index.long()] * known
    outer = loss.penalty_region == "outer" and term.kind != NOTHING
    # with the border replicated, the counts themselves tell an outer voxel
    counted = outer and term.counted == (window(loss.kernel_size, logits.ndim - 2), "replicate")
    if outer and not counted:
        mass_penalty = outer_voxels(target.marked, loss.kernel_size, target.ignore).float()
        mass_penalty = mass_penalty if known is None else mass_penalty * known
    scale_ce, scale_penalty = loss.lambda_ce, loss.alpha / (target.num_classes - first_class)
    if loss.reduction == "mean":
        voxels = target.index.numel()
        scale_ce /= (voxels if mass_ce is None else float(mass_ce.sum())) or 1.0
        scale_penalty /= (voxels if known is None else float(known.sum())) or 1.0
    return sweep(logits, target.index, term, scale_ce, scale_penalty, mass_ce, mass_penalty, first_class, counted)


def sweep(
    logits: Tensor,
    index: Tensor,
    term: Term,
    scale_ce: float,
    scale_penalty: float,
    mass_ce: Tensor | None = None,
    mass_penalty: Tensor | None = None,
    first_class: int = 0,
    outer_only: bool = False,
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
        wanted = ctx.needs_input_grad[0]
        gradient = torch.empty(logits.shape, dtype=torch.float32) if wanted else logits.new_empty(0)
        value = _run(logits.detach().contiguous(), gradient, *arguments)
        if wanted:
            ctx.save_for_backward(gradient)
        return torch.tensor(value, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "The compiled loss keeps its gradient, not its graph, and cannot be differentiated twice: compute it "
                "within monai_calib.losses.fused.disabled()."
            )
        (gradient,) = ctx.saved_tensors
        return (gradient if gradients[0] == 1 else gradient * gradients[0]), None


def _as_planes(sizes: Sequence[int]) -> tuple[int, int, int]:
    """Sizes along three axes, of which the first is walked plane by plane; of a 2D image a plane is a row."""
    if len(sizes) == 3:
        return sizes[0], sizes[1], sizes[2]
    return (sizes[0], 1, sizes[1]) if len(sizes) == 2 else (1, 1, sizes[0])


def _run(
    logits: Tensor,
    gradient: Tensor,
    index: Tensor,
    term: Term,
    scale_ce: float,
    scale_penalty: float,
    mass_ce: Tensor | None,
    mass_penalty: Tensor | None,
    first_class: int,
    outer_only: bool,
) -> float:
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
        by_class(gradient if gradient.numel() else None),
        by_voxel(index),
        by_voxel(mass_ce),
        by_voxel(mass_penalty),
        by_class(term.prior),
    )
    settings = (term.kind, term.margin, scale_ce, scale_penalty, first_class, outer_only)
    walk = (shape, _as_planes(sizes), _OUTSIDE[padding], term.counted is not None, number)
    depth, size = shape[0], shape[1] * shape[2]

    def planes(start: int, stop: int) -> tuple[float, float]:
        sums: tuple[float, float] = sweep_planes(start, stop, *arrays, *settings, *walk)
        return sums

    # a thread is worth its start for some ten thousand logits
    parts = on_threads(planes, batch * depth, smallest=max(1, 16 * BLOCK // (size * classes)), step=1)
    return scale_ce * math.fsum(p[0] for p in parts) + scale_penalty * math.fsum(p[1] for p in parts)
