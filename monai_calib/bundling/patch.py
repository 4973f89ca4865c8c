"""Patch sizes that a network can take, found out by its own forward pass on tensors without content."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

__all__ = ["check_patch", "forward_fails", "sizes_that_work"]


def forward_fails(build: Callable[[], nn.Module], patch: Sequence[int], channels: int) -> str | None:
    """Say why a training step's forward pass fails on a patch; None if it gives an output of the patch's size.

    The network is built on PyTorch's device ``meta``, where tensors have shapes and no content: it takes milliseconds,
    and draws no random numbers that training would miss.

    Args:
        build: makes the network.
        patch: voxels along each axis.
        channels: of the image.

    Example:
        >>> "input size per channel" in forward_fails(lambda: nn.Conv2d(1, 2, 5), [4, 4], 1)
        True
        >>> forward_fails(lambda: nn.Conv2d(1, 2, 5, padding=2), [4, 4], 1)
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = build().train()
        try:
            found: Any = network(torch.zeros(2, channels, *patch))
        except (RuntimeError, ValueError, IndexError) as error:
            return str(error).splitlines()[0]
    found = found[0] if isinstance(found, (list, tuple)) else found
    spatial = tuple(found.shape)[-len(patch) :]
    return None if spatial == tuple(patch) else f"the output has {' x '.join(map(str, spatial))} voxels"


def sizes_that_work(build: Callable[[], nn.Module], patch: Sequence[int], channels: int) -> list[list[int]]:
    """Patches near one that fails, on which the forward pass does not fail: at most one below and one above.

    Each axis in turn goes to the next size that works while the others have sizes that work, multiples of 32; where
    these do not work together, one axis more is enlarged.
    """

    def works(sizes: Sequence[int]) -> bool:
        return forward_fails(build, sizes, channels) is None

    safe = [max(32, -(-size // 32) * 32) for size in patch]
    below = [_first(works, safe, axis, range(size, 0, -1)) for axis, size in enumerate(patch)]
    above = [_first(works, safe, axis, range(size, safe[axis] + 1)) for axis, size in enumerate(patch)]
    smaller = [size for size in below if size is not None]
    larger = [size or most for size, most in zip(above, safe, strict=True)]
    wider = [[*larger[:axis], most, *larger[axis + 1 :]] for axis, most in enumerate(safe)]
    found = [smaller] if len(smaller) == len(patch) and works(smaller) else []
    found += [next(filter(works, [larger, *wider, safe]))] if works(safe) else []
    return found


def _first(works: Callable[[Sequence[int]], bool], safe: Sequence[int], axis: int, sizes: Sequence[int]) -> int | None:
    return next((n for n in sizes if works([*safe[:axis], n, *safe[axis + 1 :]])), None)


def check_patch(build: Callable[[], nn.Module], patch: Sequence[int], channels: int, network: str) -> None:
    """Demand that a network's forward pass works on a patch.

    Args:
        build: makes the network.
        patch: voxels along each axis.
        channels: of the image.
        network: its name, for the message.

    Raises: ``ValueError`` that says on what it fails, and sizes that work.
    """
    reason = forward_fails(build, patch, channels)
    if reason is None:
        return
    near = " or ".join(map(_shown, sizes_that_work(build, patch, channels)))
    raise ValueError(
        f"patch_size: expected voxels on which {network}'s forward pass works, got {_shown(patch)} ({reason}). "
        + (f"Take {near}." if near else "Take multiples of 32.")
    )


def _shown(patch: Sequence[int]) -> str:
    return f"[{', '.join(map(str, patch))}]"
