"""Probabilities of a case beside its true label, checked."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor

from monai_calib.labels import as_plain_tensor, check_label

__all__ = ["Truth", "check_probability", "check_truth"]


class Truth(NamedTuple):
    """Probabilities ``(K, *spatial)`` and class numbers ``(*spatial)`` on one device; both are 0 where ignored."""

    probability: torch.Tensor
    label: torch.Tensor

    @property
    def counted(self) -> torch.Tensor:
        """Voxels ``(*spatial)`` that are not ignored, of probabilities that add up to 1."""
        return self.probability.sum(0) > 0


def check_truth(
    probability: Any,
    label: Any,
    num_classes: int | None = None,
    ignore_index: int | None = None,
    case: str | None = None,
    exclusive: bool = True,
) -> Truth:
    """Check a case that a fit learns from.

    Args:
        probability: ``(K, *spatial)``.
        label: class numbers ``(*spatial)`` or ``(1, *spatial)``: a tensor or array of any type, whole numbers.
        num_classes: K; that of the probabilities by default.
        ignore_index: label of voxels that count nowhere.
        case: how errors call the case; the label's file if it has one, else "case".
        exclusive: whether probabilities must add up to 1 over the channels.

    Raises: ``ValueError`` naming the case for probabilities that are none, labels that are no class numbers, and grids
        that differ.

    Example:
        >>> check_truth(torch.tensor([[0.9, 0.5], [0.1, 0.5]]), torch.tensor([1.0, 255.0]), ignore_index=255)
        Truth(probability=tensor([[0.9000, 0.0000],
                [0.1000, 0.0000]]), label=tensor([1, 0], dtype=torch.uint8))
        >>> check_truth(torch.tensor([[0.9], [0.1]]), torch.tensor([0.9999]), case="liver_07")
        Traceback (most recent call last):
        ValueError: liver_07: label: expected whole class numbers from 0 to 1, got 0.9999. Remap the label, or ...
    """
    file = label.meta.get("filename_or_obj") if isinstance(label, MetaTensor) else None
    case = case or str(file or "case")
    probability = check_probability(probability, num_classes, f"{case}: ", exclusive)
    grid = probability.shape[1:]
    checked = check_label(label, len(probability), ignore_index, f"{case}: label", look=True)
    if checked.index.shape not in (grid, (1, *grid)):
        raise ValueError(
            f"{case}: expected a label with the grid {tuple(grid)} of the probabilities, "
            f"got {tuple(checked.index.shape)}"
        )
    if checked.valid is not None:
        probability = probability * checked.valid.reshape(grid).to(probability.device)
    return Truth(probability, checked.index.reshape(grid).to(probability.device))


def check_probability(
    probability: Any, num_classes: int | None = None, where: str = "", exclusive: bool = True
) -> torch.Tensor:
    """Check that values ``(K, *spatial)`` are probabilities of classes, and return them without their header.

    Args:
        num_classes: K; any number by default.
        where: how errors begin, such as ``"liver_07: "``.
        exclusive: whether they must add up to 1 over the channels.

    Raises: ``ValueError`` for another number of channels, values below 0 or above 1, NaN, or sums that are not 1.

    Example:
        >>> check_probability(torch.tensor([[2.0], [-2.0]]))
        Traceback (most recent call last):
        ValueError: expected probabilities (K, *spatial) between 0 and 1, got -2 ... 2; apply softmax to logits first
    """
    plain = as_plain_tensor(probability)
    if plain.ndim < 2 or num_classes not in (None, len(plain)):
        raise ValueError(f"{where}expected probabilities ({num_classes or 'K'}, *spatial), got {tuple(plain.shape)}")
    if not bool(((plain >= 0) & (plain <= 1 + 1e-4)).all()):
        raise ValueError(
            f"{where}expected probabilities (K, *spatial) between 0 and 1, got {float(plain.min()):.3g} ... "
            f"{float(plain.max()):.3g}; apply softmax to logits first"
        )
    total = plain.double().sum(0)
    if exclusive and not bool(((total - 1).abs() < 1e-3).all()):
        raise ValueError(
            f"{where}expected probabilities (K, *spatial) that sum to 1, got {tuple(plain.shape)} with sums "
            f"{float(total.min()):.3g} ... {float(total.max()):.3g}; apply softmax, and take them before argmax"
        )
    return plain
