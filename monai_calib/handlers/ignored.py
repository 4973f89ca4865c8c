"""Take ignored voxels out of label and prediction, for metrics and pictures that know of none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from monai.handlers import from_engine

__all__ = ["without_ignored"]


def without_ignored(ignore_index: int, keys: Sequence[str] = ("pred", "label")) -> Callable[[Any], Any]:
    """Make an ``output_transform`` like ``from_engine(keys)``, with background where the label is ignored.

    Both the label and the predicted class are set to 0 there, so that neither overlap nor error is counted.

    Args:
        ignore_index: label of voxels that count nowhere.
        keys: items of the engine's output to return; of them, ``label`` and ``pred`` are changed, if they are maps of
            class numbers.

    Example:
        >>> import torch
        >>> case = {"pred": torch.tensor([[1, 1]]), "label": torch.tensor([[255, 1]])}
        >>> without_ignored(255)([case])
        ([tensor([[0, 1]])], [tensor([[0, 1]])])
    """
    names = list(keys)
    labels = from_engine(["label"])
    items = from_engine(names)

    def transform(output: Any) -> Any:
        ignored = [label == ignore_index for label in labels(output)]
        given = items(output)
        return tuple(
            [case.masked_fill(where.to(case.device), 0) for case, where in zip(cases, ignored, strict=True)]
            if name in ("pred", "label")
            else cases
            for name, cases in zip(names, [given] if len(names) == 1 else given, strict=True)
        )

    return transform
