"""The sweep of :mod:`.fused` in PyTorch operations, slab by slab, on any device and without waiting for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .kernels import ENTROPY, MARGIN_L1, MARGIN_L2, NOTHING, PRIOR_L1, PRIOR_L2, SMOOTHING
from .neighborhood import neighbor_counts

if TYPE_CHECKING:
    from .fused import Term

__all__ = ["run_slabs"]

# logits a slab: some operations of this size fill a GPU; what is not kept stays small beside the volume
_SLAB = {"cpu": 2**17}
_SLAB_ELSEWHERE = 2**24


def run_slabs(
    logits: Tensor,
    wanted: bool,
    index: Tensor,
    term: Term,
    scale_ce: float | Tensor,
    scale_penalty: float | Tensor,
    mass_ce: Tensor | None,
    mass_penalty: Tensor | None,
    first_class: int,
    outer_only: bool,
) -> tuple[Tensor, Tensor | None]:
    """The value and, if ``wanted``, the gradient; arguments as in :func:`.fused.sweep`."""
    batch, classes = logits.shape[:2]
    prior, full = term.prior, 0
    if term.counted is not None:
        prior = neighbor_counts(index, classes, *term.counted)
        full = 1
        for size in term.counted[0]:
            full *= size
    gradient = torch.empty_like(logits) if wanted else None
    flat = logits.view(batch, classes, -1)
    value = logits.new_zeros(())
    size = _SLAB.get(logits.device.type, _SLAB_ELSEWHERE)
    voxels = max(1, min(flat.shape[2], size // classes))
    images = max(1, size // (classes * voxels))
    for first in range(0, batch, images):
        for start in range(0, flat.shape[2], voxels):
            part = slice(first, first + images), ..., slice(start, start + voxels)
            value += _slab(
                flat[part],
                None if gradient is None else gradient.view(batch, classes, -1)[part],
                index.reshape(batch, -1)[part].long(),
                None if prior is None else prior.reshape(batch, classes, -1)[part],
                None if mass_ce is None else mass_ce.reshape(batch, -1)[part],
                None if mass_penalty is None else mass_penalty.reshape(batch, -1)[part],
                term,
                scale_ce,
                scale_penalty,
                first_class,
                full,
                outer_only,
            )
    return value, gradient


def _slab(
    x: Tensor,
    gradient: Tensor | None,
    label: Tensor,
    prior: Tensor | None,
    mass_ce: Tensor | None,
    mass_penalty: Tensor | None,
    term: Term,
    scale_ce: float | Tensor,
    scale_penalty: float | Tensor,
    first_class: int,
    full: int,
    outer_only: bool,
) -> Tensor:
    at = label.unsqueeze(1)
    log_sum = x.logsumexp(1, keepdim=True)
    cross_entropy = log_sum - x.gather(1, at)
    weight = scale_ce if mass_ce is None else scale_ce * mass_ce.unsqueeze(1)
    value = (weight * cross_entropy).sum()
    if gradient is not None:
        torch.sub(x, log_sum, out=gradient)
        gradient.exp_().mul_(weight)
        gradient.scatter_add_(1, at, _on_device(-weight, x).expand_as(at))
    if term.kind == NOTHING:
        return value

    force: float | Tensor = scale_penalty if mass_penalty is None else scale_penalty * mass_penalty.unsqueeze(1)
    if outer_only:
        assert prior is not None
        force = force * (prior.gather(1, at) != full)
    held = x[:, first_class:]
    slope = None if gradient is None else gradient[:, first_class:]
    if term.kind in (PRIOR_L1, PRIOR_L2):
        assert prior is not None
        far = held - (prior[:, first_class:] / full if full else prior[:, first_class:])
        value = value + (force * (far.abs() if term.kind == PRIOR_L1 else far * far)).sum()
        if slope is not None:
            slope += (far.sign_() if term.kind == PRIOR_L1 else far.mul_(2)).mul_(force)
    elif term.kind in (MARGIN_L1, MARGIN_L2):
        top, winner = x.max(1, keepdim=True)
        over = torch.relu(top - held - term.margin)
        value = value + (force * (over if term.kind == MARGIN_L1 else over * over)).sum()
        if gradient is not None and slope is not None:
            # what pulls the losing logits up pushes the winner down
            pull = ((over > 0).to(x.dtype) if term.kind == MARGIN_L1 else 2 * over) * force
            slope -= pull
            gradient.scatter_add_(1, winner, pull.sum(1, keepdim=True))
    elif term.kind == SMOOTHING:
        classes = held.shape[1]
        value = value + (force * (classes * (log_sum - cross_entropy) - held.sum(1, keepdim=True))).sum()
        if gradient is not None and slope is not None:
            slope -= force
            gradient.scatter_add_(1, at, _on_device(classes * force, x).expand_as(at))
    elif term.kind == ENTROPY:
        log_prob = x - log_sum
        prob = log_prob.exp()
        negative = (prob * log_prob).sum(1, keepdim=True)
        value = value + (force * negative).sum()
        if slope is not None:
            slope += prob * (log_prob - negative) * force
    return value


def _on_device(value: float | Tensor, like: Tensor) -> Tensor:
    """A number is filled in on the device; copied there, it would make the host wait."""
    return value if isinstance(value, Tensor) else like.new_full((), value)
