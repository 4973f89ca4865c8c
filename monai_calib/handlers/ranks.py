"""The processes of a distributed run, as the handlers see them.

PyTorch's own functions, not ignite's: ignite's first call in a process sets up a group and waits for all others, and a
handler that asks for its rank in the middle of an epoch must not wait.
"""

from __future__ import annotations

import time
from typing import Any

import torch.distributed as dist

__all__ = ["barrier", "broadcast", "gather_lists", "leave_process_group", "rank", "world_size"]

_SECONDS_TO_LET_GO = 1.0


def rank() -> int:
    """The number of this process, 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_lists(items: list[Any]) -> list[Any]:
    """The ranks' lists one after the other, in rank order, on every rank; an empty list is welcome.

    Example:
        >>> gather_lists(["scan_1", "scan_2"])
        ['scan_1', 'scan_2']
    """
    if world_size() == 1:
        return items
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, items)
    return [item for part in gathered for item in part]


def broadcast(value: Any, owner: int) -> Any:
    """Give every rank what the rank ``owner`` holds."""
    if world_size() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, src=owner)
    return held[0]


def barrier() -> None:
    """Wait until every rank is here."""
    if world_size() > 1:
        gather_lists([])


def leave_process_group() -> None:
    """Leave the process group together with all other ranks, when the work is done.

    Gloo's threads free the tensors of a sum a moment after it is there, for which they need the interpreter. A process
    that ends in that moment has none, and aborts ("terminate called without an active exception"); so they get time.
    """
    dist.barrier()
    dist.destroy_process_group()
    time.sleep(_SECONDS_TO_LET_GO)
