"""Cases with a known calibration, and small networks of MONAI."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_calib.posthoc import LogitCase


def drawn_cases(
    count: int = 4, num_classes: int = 3, size: int = 12, temperature: float = 2.0, seed: int = 0
) -> list[LogitCase]:
    """Labels drawn from ``softmax(logits / temperature)``: with enough voxels, the best temperature is that one."""
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for i in range(count):
        logits = 3 * torch.randn(num_classes, size, size, size, generator=generator)
        label = draw(logits / temperature, generator)
        cases.append(LogitCase(f"case {i}", logits, label, spacing=(1.0, 1.0, 1.0)))
    return cases


def draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One label a voxel, from the softmax over the first axis."""
    flat = logits.flatten(1).softmax(0).T
    return torch.multinomial(flat, 1, generator=generator).reshape(logits.shape[1:])


def all_voxels(cases: list[LogitCase], region: str = "all") -> tuple[Tensor, Tensor]:
    """Logits ``(N, K)`` in double precision and labels ``(N,)`` of a region, side by side."""
    slabs = [slab for case in cases for slab in case.slabs(region)]
    return torch.cat([logits.T for logits, _, _ in slabs]), torch.cat([label for _, label, _ in slabs])
