"""Checkpoints of PyTorch: values, names, pickles."""

from __future__ import annotations

import io
from random import Random
from typing import Any

from .generic import Bomb, Mutation
from .npz import npz_member


def _saved(value: Any) -> bytes:
    import torch

    held = io.BytesIO()
    torch.save(value, held)
    return held.getvalue()


def checkpoint_value(content: bytes, random: Random) -> bytes:
    import torch

    value = torch.load(io.BytesIO(content), weights_only=True)
    holder = value
    while isinstance(holder, dict) and holder and random.random() < 0.6:
        inner = [item for item in holder.values() if isinstance(item, dict) and item]
        if not inner:
            break
        holder = random.choice(inner)
    key = random.choice(list(holder))
    nasty = [None, 5, "a", [], {}, torch.zeros(3), torch.zeros(0), [1, 2], 2**70, torch.zeros(2, 2, dtype=torch.int8)]
    holder[key] = random.choice(nasty)
    return _saved(value)


def checkpoint_without(content: bytes, random: Random) -> bytes:
    import torch

    value = torch.load(io.BytesIO(content), weights_only=True)
    value.pop(random.choice(list(value)))
    return _saved(value)


def checkpoint_of_another(content: bytes, random: Random) -> bytes:
    import torch

    layer = random.choice([torch.nn.Linear(2, 2), torch.nn.Conv3d(1, 4, 3), torch.nn.BatchNorm1d(3)])
    return _saved(random.choice([layer.state_dict(), {"model": layer.state_dict()}, list(layer.parameters())]))


def checkpoint_bomb(content: bytes, random: Random) -> bytes:
    return _saved(random.choice([Bomb(), {"model": Bomb()}, [Bomb()]]))


def checkpoint_inside(content: bytes, random: Random) -> bytes:
    return npz_member(content, random)


CHECKPOINT: tuple[Mutation, ...] = (
    checkpoint_value, checkpoint_value, checkpoint_value, checkpoint_without, checkpoint_of_another, checkpoint_bomb,
    checkpoint_inside, checkpoint_inside,
)  # fmt: skip
