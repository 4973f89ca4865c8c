"""Check of labels: class numbers must be whole and in range, whatever their type; shares of classes must sum to 1."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_calib.words import counted

__all__ = [
    "CheckedLabel",
    "as_plain_tensor",
    "check_label",
    "check_soft_label",
    "mean_label",
    "top_class",
    "wrong_shares",
]

_UNSIGNED = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}


@dataclass(frozen=True, eq=False)
class CheckedLabel:
    """Class numbers in the form that everything reads.

    Attributes:
        index: class numbers in the shape of the label, uint8 (int32 from 255 classes on); 0 where ignored or wrong.
        valid: bool, False where ignored or wrong; None if every voxel counts.
        wrong: bool, True where the value is no class; None where the values were looked at, and all are right.
    """

    index: Tensor
    valid: Tensor | None
    wrong: Tensor | None


def as_plain_tensor(value: Any) -> Tensor:
    """The tensor behind a MetaTensor, or of an array in any byte order and with any strides; shared where possible.

    Types that PyTorch stores but hardly computes with (uint16, uint32, uint64) become signed ones that hold them;
    a uint64 beyond int64 becomes negative, which is no class.

    Raises: ``TypeError`` for anything but a tensor or an array of numbers.

    Example:
        >>> as_plain_tensor(np.array([1, 2], dtype=">u2")[::-1])
        tensor([2, 1], dtype=torch.int32)
    """
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            raise TypeError(f"expected an array of numbers, got {value.dtype}")
        native = value.astype(value.dtype.newbyteorder("="), copy=False)
        if any(step < 0 for step in native.strides):
            native = native.copy()
        with warnings.catch_warnings():  # a read-only memory map: nothing here writes to it
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            value = torch.from_numpy(native)
    if not isinstance(value, Tensor):
        raise TypeError(f"expected a torch.Tensor or a numpy.ndarray, got {type(value).__name__}")
    plain = value.detach()
    if type(plain) is not Tensor:  # torch.compile cannot trace the call on a plain tensor
        plain = plain.as_subclass(Tensor)
    return plain.to(_UNSIGNED[plain.dtype]) if plain.dtype in _UNSIGNED else plain


def check_label(
    label: Any, num_classes: int, ignore_index: int | None = None, what: str = "label", look: bool | None = None
) -> CheckedLabel:
    """Check class numbers and bring them to one type.

    Args:
        label: tensor or array of any shape and type: integers of any size, booleans, floats that hold whole numbers.
        num_classes: K; values must be 0 ... K - 1.
        ignore_index: value that counts nowhere, compared as a number: 255 in a float label, -100 in an int64 one, and
            in an unsigned label that cannot hold it no voxel.
        what: how errors call the label, such as ``"case hippocampus_001: label"``.
        look: whether to look at the values and raise. By default on the CPU and outside ``torch.compile``; elsewhere
            looking would make the host wait, and :attr:`CheckedLabel.wrong` says where values are wrong.

    Raises: ``ValueError`` that names up to twelve values that are fractions, NaN or out of range; ``TypeError`` for
        complex or other labels that are no numbers.

    Example:
        >>> check_label(torch.tensor([0.0, 2.0, 255.0]), 3, ignore_index=255)
        CheckedLabel(index=tensor([0, 2, 0], dtype=torch.uint8), valid=tensor([ True,  True, False]), wrong=None)
        >>> check_label(torch.tensor([1.9998]), 3)
        Traceback (most recent call last):
        ValueError: label: expected whole class numbers from 0 to 2, got 1.9998. Remap the label, or name ...
    """
    plain = as_plain_tensor(label)
    if plain.is_complex():
        raise TypeError(f"{what}: expected class numbers, got {plain.dtype}")
    if plain.dtype == torch.bool:
        plain = plain.to(torch.uint8)
    if look is None:
        look = plain.device.type == "cpu" and not torch.compiler.is_compiling()
    kept = torch.uint8 if num_classes < 255 else torch.int32
    ignored = _ignored(plain, ignore_index)
    if look and plain.numel():
        known = plain if ignored is None else plain.masked_fill(ignored, 0)
        low, high = known.aminmax()
        whole = not known.is_floating_point() or bool((known == known.round()).all())
        if not (low >= 0 and high < num_classes and whole):  # also for NaN
            _refuse(known, num_classes, ignore_index, what)
        return CheckedLabel(known.to(kept), None if ignored is None else ~ignored, None)
    if look:
        return CheckedLabel(plain.to(kept), None if ignored is None else ~ignored, None)
    wrong = ~((plain >= 0) & (plain < num_classes))
    if plain.is_floating_point():
        wrong = wrong | (plain != plain.round())
    if ignored is not None:
        wrong = wrong & ~ignored
    out = wrong if ignored is None else wrong | ignored
    return CheckedLabel(plain.masked_fill(out, 0).to(kept), ~out, wrong)


def check_soft_label(label: Any, axis: int = 1, what: str = "label", look: bool | None = None) -> Tensor | None:
    """Check shares of the classes, one-hot or soft: none is negative, and they sum to 1, to 0.001, at every voxel.

    Args:
        label: tensor or array of any shape and type of number.
        axis: where the classes lie.
        what: how errors call the label.
        look: as in :func:`check_label`.

    Returns:
        None if the values were looked at, and all are right; otherwise bool in the shape of the label without its
        classes, True where they are wrong.

    Raises: ``ValueError`` that says how many voxels are wrong, and the first of them.

    Example:
        >>> check_soft_label(torch.tensor([[[0.3, 1.0], [0.7, 0.0]]]))
        >>> check_soft_label(torch.tensor([[[0.3, 1.0], [0.7, 1.0]]]), look=False)
        tensor([[False,  True]])
    """
    plain = as_plain_tensor(label)
    wrong = wrong_shares(plain, axis)
    if look is None:
        look = plain.device.type == "cpu" and not torch.compiler.is_compiling()
    if not look:
        return wrong
    if bool(wrong.any()):
        first = ", ".join(f"{value:.6g}" for value in plain.movedim(axis, -1)[wrong][0].tolist()[:12])
        raise ValueError(
            f"{what}: expected shares of the classes that are not negative and sum to 1 at every voxel, got {first} at "
            f"the first of {counted(int(wrong.sum()), 'voxel')}. Divide by the sum, or give class numbers "
            "(B, 1, *spatial)."
        )
    return None


def wrong_shares(label: Tensor, axis: int = 1) -> Tensor:
    """Voxels whose shares of the classes are negative, NaN, or do not sum to 1, to 0.001; without a look at values."""
    shares = label if label.dtype in (torch.float32, torch.float64) else label.float()
    return ~((shares >= 0).all(axis) & ((shares.sum(axis) - 1).abs() <= 1e-3))


def mean_label(raters: Any, num_classes: int, ignore_index: int | None = None, what: str = "label") -> Tensor:
    """Share of the raters that gave each class: ``(R, *spatial)`` class numbers to ``(K, *spatial)`` float32.

    ``share_k = sum_r [y_r = k] / R``, over the raters who know the voxel where some left it out; where all did, every
    channel is ``ignore_index``, which a histogram leaves out.

    Args:
        raters: class numbers, one channel a rater.
        num_classes: K.
        ignore_index: label of voxels that a rater left out.
        what: how errors call the label.

    Raises: ``ValueError`` as :func:`check_label`; where values are not looked at, wrong ones give NaN.

    Example:
        >>> mean_label(torch.tensor([[0, 1, 1], [0, 0, 1]]), num_classes=2)
        tensor([[1.0000, 0.5000, 0.0000],
                [0.0000, 0.5000, 1.0000]])
    """
    known = check_label(raters, num_classes, ignore_index, what)
    counted = torch.ones_like(known.index, dtype=torch.bool) if known.valid is None else known.valid
    votes = torch.stack([((known.index == k) & counted).sum(0) for k in range(num_classes)])
    total = counted.sum(0)
    shares = votes / total.clamp_min(1)
    if known.wrong is not None:
        shares = shares.masked_fill(known.wrong.any(0), torch.nan)
    return shares if ignore_index is None else shares.masked_fill((total == 0) & ~shares[0].isnan(), ignore_index)


def _ignored(label: Tensor, ignore_index: int | None) -> Tensor | None:
    if ignore_index is None:
        return None
    if not label.is_floating_point():
        limits = torch.iinfo(label.dtype)
        if not limits.min <= ignore_index <= limits.max:
            return torch.zeros_like(label, dtype=torch.bool)  # no voxel can bear it
    return label == ignore_index


def _refuse(label: Tensor, num_classes: int, ignore_index: int | None, what: str) -> None:
    values = label.unique()
    wrong = values[~((values >= 0) & (values < num_classes) & (values == values.round()))]
    seen = ", ".join(f"{value:g}" if abs(value) >= 1e5 else f"{value:.6g}" for value in wrong.double().tolist()[:12])
    more = f" and {len(wrong) - 12} more" if len(wrong) > 12 else ""
    known = "" if ignore_index is None else f" or {ignore_index} (ignore_index)"
    raise ValueError(
        f"{what}: expected whole class numbers from 0 to {num_classes - 1}{known}, got {seen}{more}. Remap the label, "
        "or name the value to leave out with ignore_index; soft labels have one channel per class."
    )


def top_class(values: torch.Tensor, axis: int = 0) -> torch.Tensor:
    """Index of the largest along an axis of classes, the first of equals; without gradient.

    What ``values.argmax(axis)`` gives, which on the CPU is some ten times slower across a leading axis; in bytes,
    unless there are more than 256 classes.

    Example:
        >>> top_class(torch.tensor([[0.2, 0.5], [0.8, 0.5]]))
        tensor([1, 0], dtype=torch.uint8)
    """
    first, *others = values.detach().unbind(axis)
    best = first.clone()
    top = torch.zeros_like(best, dtype=torch.uint8 if len(others) < 256 else torch.int32)
    for k, part in enumerate(others, 1):
        top.masked_fill_(part > best, k)
        torch.maximum(best, part, out=best)
    return top
