"""Choice of one variant by validation: the lowest mean over the seeds that all variants have."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import NamedTuple, TypeVar

__all__ = ["Variants", "choose_variant"]

_Name = TypeVar("_Name", bound=Hashable)


class Variants(NamedTuple):
    """The chosen variant's place (-1: none can be judged), means over the common seeds, and those seeds."""

    best: int
    means: tuple[float, ...]
    seeds: tuple[Hashable, ...]


def choose_variant(values: Mapping[_Name, Mapping[Hashable, float]]) -> Variants:
    """Choose the variant with the smallest value on validation.

    Only seeds that all variants have count, so that none is judged by luckier ones. A variant whose mean is not finite
    (it diverged) is out.

    Args:
        values: by variant and seed; smaller is better.

    Example:
        >>> choose_variant({"margin 5": {1: 0.2, 2: 0.1}, "margin 10": {1: 0.15}})
        Variants(best=1, means=(0.2, 0.15), seeds=(1,))
    """
    first, *others = [list(of_seed) for of_seed in values.values()]
    seeds = tuple(seed for seed in first if all(seed in other for other in others))
    means = tuple(math.fsum(of[seed] for seed in seeds) / len(seeds) if seeds else math.nan for of in values.values())
    finite = [place for place, mean in enumerate(means) if math.isfinite(mean)]
    return Variants(min(finite, key=lambda place: means[place]) if finite else -1, means, seeds)
