"""The fast path: cross-entropy, penalty and their gradient in one sweep over the logits.

The plain formulas of the other files read the logits a dozen times and write as many tensors of their size. Here the
logits are read once: maximum, exponentials, loss, penalty, and the gradient, which is all that is kept for the
backward pass. On the CPU the sweep is compiled (:mod:`.kernels`) and counts neighbours on its way; elsewhere it goes
in slabs of PyTorch operations (:mod:`.slabs`). Figures agree with the plain formulas to rounding; a test holds the
three together.
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
from .slabs import run_slabs

if TYPE_CHECKING:
    from .base import ConstrainedLoss
    from .target import Target

__all__ = ["Term", "evaluate", "sweep", "using"]

_OUTSIDE = {"replicate": 0, "background": 1, "zeros": 2}

_path: str | None = None


@contextmanager
def using(path: str) -> Iterator[None]:
    """Compute with the ``"plain"`` formulas, which can be differentiated twice, in ``"slabs"``, or ``"compiled"``.

    Without it the fastest that can read the logits is taken.

    Example:
        >>> from monai_calib.losses import build_loss
        >>> with using("plain"):
        ...     build_loss("nacl")(torch.zeros(1, 2, 8), torch.zeros(1, 1, 8)).item()
        0.7431...
    """
    global _path
    if path not in ("plain", "slabs", "compiled"):
        raise ValueError(f"path must be 'plain', 'slabs' or 'compiled', got {path!r}.")
    before, _path = _path, path
    try:
        yield
    finally:
        _path = before


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


def _chosen(logits: Tensor) -> str:
    """The path for these logits: neither sweep reads float64, a graph being traced, or no voxels at all."""
    if (
        torch.compiler.is_compiling()
        or logits.dtype != torch.float32
        or logits.device.type == "meta"
        or logits.numel() == 0
        or torch._C._functorch.peek_interpreter_stack()
    ):
        return "plain"
    compiled = logits.device.type == "cpu" and logits.shape[1] < 255
    return _path or ("compiled" if compiled else "slabs")


def evaluate(loss: ConstrainedLoss, logits: Tensor, target: Target) -> tuple[Tensor | None, bool]:
    """Primary and penalty of ``loss`` in one sweep, and whether the penalty is in it.

    Swept is cross-entropy on class numbers, reduced to a mean or a sum, together with a penalty that puts itself in
    the words of a :class:`Term`. None stands for a primary that has to be computed by its plain formula.
    """
    path = _chosen(logits)
    primary = getattr(loss.primary, "compiled", False) is True
    if path == "plain" or not primary or target.soft is not None or loss.reduction == "none":
        return None, False
    first_class = 0 if loss.include_background else 1
    compiled = getattr(loss.penalty, "compiled", None)
    term: Term | None = None if compiled is None else compiled(logits, target)
    if term is None or (first_class and (term.kind == ENTROPY or target.num_classes == 1)):
        term, first_class = Term(NOTHING), 0

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
    scale_ce: float | Tensor = loss.lambda_ce
    scale_penalty: float | Tensor = loss.alpha / (target.num_classes - first_class)
    if loss.reduction == "mean":
        voxels = target.index.numel()
        scale_ce = scale_ce / (voxels if mass_ce is None else _total(mass_ce))
        scale_penalty = scale_penalty / (voxels if known is None else _total(known))
    chosen = (mass_ce, mass_penalty, first_class, counted)
    value = sweep(logits, target.index, term, scale_ce, scale_penalty, *chosen, path=path)
    return value, term.kind != NOTHING


def _total(mass: Tensor) -> float | Tensor:
    """The sum, or 1 where it is 0; a tensor where looking at it would make the host wait."""
    total = mass.sum()
    return (float(total) or 1.0) if mass.device.type == "cpu" else torch.where(total > 0, total, 1.0)


def sweep(
    logits: Tensor,
    index: Tensor,
    term: Term,
    scale_ce: float | Tensor,
    scale_penalty: float | Tensor,
    mass_ce: Tensor | None = None,
    mass_penalty: Tensor | None = None,
    first_class: int = 0,
    outer_only: bool = False,
    path: str = "compiled",
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
        path: ``"compiled"`` or ``"slabs"``.
    """
    arguments = (index, term, scale_ce, scale_penalty, mass_ce, mass_penalty, first_class, outer_only)
    value: Tensor = _Sweep.apply(logits, path, arguments)
    return value


class _Sweep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, path: str, arguments: tuple[Any, ...]) -> Tensor:
        run = run_slabs if path == "slabs" else _run_compiled
        value, gradient = run(logits.detach().contiguous(), ctx.needs_input_grad[0], *arguments)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return torch.as_tensor(value, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "The fast path keeps the loss's gradient, not its graph, and cannot be differentiated twice: compute "
                "the loss within monai_calib.losses.fused.using('plain')."
            )
        (gradient,) = ctx.saved_tensors
        # on the CPU a look is free and spares a pass over the gradient
        untouched = gradient.device.type == "cpu" and bool(gradients[0] == 1)
        return (gradient if untouched else gradient * gradients[0]), None, None


def _as_planes(sizes: Sequence[int]) -> tuple[int, int, int]:
    """Sizes along three axes, of which the first is walked plane by plane; of a 2D image a plane is a row."""
    if len(sizes) == 3:
        return sizes[0], sizes[1], sizes[2]
    return (sizes[0], 1, sizes[1]) if len(sizes) == 2 else (1, 1, sizes[0])


def _run_compiled(
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
    walk = (shape, _as_planes(sizes), _OUTSIDE[padding], term.counted is not None, number)
    depth, size = shape[0], shape[1] * shape[2]

    def planes(start: int, stop: int) -> tuple[float, float]:
        sums: tuple[float, float] = sweep_planes(start, stop, *arrays, *settings, *walk)
        return sums

    # a thread is worth its start for some ten thousand logits
    parts = on_threads(planes, batch * depth, smallest=max(1, 16 * BLOCK // (size * classes)), step=1)
    value = scale_ce * math.fsum(p[0] for p in parts) + scale_penalty * math.fsum(p[1] for p in parts)
    return value, gradient
