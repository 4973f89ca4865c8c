"""Truth of a batch as the terms of a loss read it, checked once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_calib.labels import as_plain_tensor, check_label, check_soft_label, top_class

from .neighborhood import label_proportions, outer_voxels

__all__ = ["Target", "check_logits", "plain", "prepare", "readable"]


def plain(x: Tensor) -> Tensor:
    """The tensor without a subclass such as MetaTensor, whose dispatch costs time in every operation."""
    return x.as_subclass(Tensor) if type(x) not in (Tensor, torch.nn.Parameter) else x


@dataclass(frozen=True, eq=False)
class Target:
    """The truth of a batch.

    Attributes:
        index: class numbers ``(B, *spatial)``; 0 where ignored; the likeliest class of a soft label.
        soft: soft or one-hot labels ``(B, K, *spatial)`` if the caller gave such, in the type of the logits.
        valid: bool ``(B, *spatial)``, False where ignored; None if nothing is.
        image: ``(B, C, *spatial)`` if the caller gave one.
        poison: 0, or NaN if a label is out of range on a device that must not be waited for; None if it was checked.
        num_classes: K.
    """

    index: Tensor
    soft: Tensor | None
    valid: Tensor | None
    image: Tensor | None
    poison: Tensor | None
    num_classes: int

    @property
    def ignore(self) -> int | None:
        """The number that stands for an ignored voxel in :attr:`marked`, or None if there is none."""
        return None if self.valid is None else self.num_classes

    @property
    def marked(self) -> Tensor:
        """Class numbers with :attr:`ignore` where the label is not known."""
        return self.index if self.valid is None else torch.where(self.valid, self.index, self.num_classes)

    def known(self, dtype: torch.dtype) -> Tensor:
        """1 at every voxel whose label is known, 0 at the others, ``(B, *spatial)``."""
        return torch.ones_like(self.index, dtype=dtype) if self.valid is None else self.valid.to(dtype)

    def one_hot(self, dtype: torch.dtype) -> Tensor:
        """The label as ``(B, K, *spatial)``, zero where ignored."""
        if self.soft is not None:
            return self.soft.to(dtype)
        shape = (self.index.shape[0], self.num_classes, *self.index.shape[1:])
        hot = torch.zeros(shape, dtype=dtype, device=self.index.device).scatter_(1, self.index.long().unsqueeze(1), 1)
        return hot if self.valid is None else hot * self.valid.unsqueeze(1)

    def proportions(
        self,
        dtype: torch.dtype,
        kernel_ops: str = "mean",
        kernel_size: int | Sequence[int] = 3,
        sigma: float | Sequence[float] = 1.0,
        padding: str = "replicate",
    ) -> Tensor:
        """tau ``(B, K, *spatial)``, see :func:`~.neighborhood.label_proportions`."""
        label = self.marked if self.soft is None else self.soft
        window = (kernel_ops, kernel_size, sigma, padding)
        return label_proportions(label, self.num_classes, *window, self.image, self.ignore, dtype)

    def outer(self, kernel_size: int | Sequence[int]) -> Tensor:
        """Voxels whose window holds more than one known label, bool ``(B, *spatial)``."""
        return outer_voxels(self.marked, kernel_size, self.ignore)

    def at_label(self, values: Tensor) -> Tensor:
        """``values`` of the labelled class: ``(B, K, *spatial)`` to ``(B, *spatial)``; the mean under a soft label."""
        if self.soft is not None:
            return (self.soft * values).sum(1)
        return values.gather(1, self.index.long().unsqueeze(1)).squeeze(1)

    def reduce(self, voxels: Tensor, reduction: str, weight: Tensor | None = None) -> Tensor:
        """Mean, sum or neither over the known voxels; ``weight`` is one number per class of the label.

        A batch without a known voxel gives 0, with zero gradients, rather than 0 / 0.
        """
        mass: Tensor | None = None
        if weight is not None:
            weight = weight.to(voxels.dtype)
            mass = weight[self.index.long()] if self.soft is None else torch.movedim(self.soft, 1, -1) @ weight
        if self.valid is not None:
            mass = self.valid.to(voxels.dtype) if mass is None else mass * self.valid
        if mass is not None:
            voxels = voxels * mass
        if reduction == "none":
            return voxels
        total = voxels.sum()
        if reduction == "sum":
            return total
        if mass is None:
            return total / max(voxels.numel(), 1)
        mass = mass.sum()
        return total / torch.where(mass > 0, mass, 1.0)


def check_logits(logits: Tensor) -> None:
    """Refuse what is not one floating point tensor ``(B, K, *spatial)`` with one to three axes."""
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"logits: expected one tensor (B, K, *spatial), got a {type(logits).__name__}. "
            "For the heads of deep supervision wrap the loss in monai.losses.DeepSupervisionLoss."
        )
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}.")
    if not 3 <= logits.ndim <= 5:
        raise ValueError(f"logits must be (B, K, *spatial) with one to three axes, got {tuple(logits.shape)}.")


def prepare(logits: Tensor, label: Tensor, ignore_index: int | None = None, image: Tensor | None = None) -> Target:
    """Check logits and label against each other and bring the label into the form of :class:`Target`.

    On the CPU a wrong label raises. On another device, or under ``torch.compile``, looking at values would make the
    host wait, so a label out of range makes the loss NaN instead, which
    :class:`~monai_calib.handlers.NonFiniteGuard` reports with the batch's names and the reason.

    Args:
        logits: ``(B, K, *spatial)``, one to three spatial axes, floating point.
        label: ``(B, *spatial)`` or ``(B, 1, *spatial)`` class numbers of any type, or ``(B, K, *spatial)``.
        ignore_index: label value left out of every term.
        image: ``(B, C, *spatial)``.

    Raises:
        ValueError: shapes that do not fit, labels that are not class numbers below K, soft labels that do not sum to
            1, logits of one channel.
        TypeError: logits that are not one floating point tensor, such as the heads of deep supervision.

    Example:
        >>> prepare(torch.zeros(1, 3, 4), torch.tensor([[[0, 1, 2, 2]]])).index
        tensor([[0, 1, 2, 2]], dtype=torch.uint8)
    """
    check_logits(logits)
    num_classes, spatial = logits.shape[1], logits.shape[2:]
    if num_classes == 1:
        raise ValueError(
            "logits: expected one channel per class, background included, got 1, whose softmax is always 1. "
            "Give a binary network two output channels, or build the loss with activation='sigmoid'."
        )
    by_index = label.shape in ((logits.shape[0], *spatial), (logits.shape[0], 1, *spatial))
    if not by_index and label.shape != logits.shape:
        raise ValueError(
            f"label must be (B, *spatial), (B, 1, *spatial) or (B, K, *spatial) for logits {tuple(logits.shape)}, "
            f"got {tuple(label.shape)}."
        )
    label = as_plain_tensor(label)
    image = None if image is None else as_plain_tensor(image)
    look = logits.device.type == "cpu" and not torch.compiler.is_compiling()
    if by_index:
        checked = check_label(label.reshape(logits.shape[0], *spatial), num_classes, ignore_index, look=look)
        valid = checked.valid if ignore_index is not None else None
        return Target(checked.index, None, valid, image, _poison(checked.wrong), num_classes)
    if ignore_index is not None:
        raise ValueError("ignore_index needs a label of class numbers (B, 1, *spatial), not one channel per class.")
    soft = label.to(logits.dtype if logits.dtype == torch.float64 else torch.float32)
    wrong = check_soft_label(soft, look=look)
    return Target(top_class(soft, 1), soft, None, image, _poison(wrong), num_classes)


def _poison(wrong: Tensor | None) -> Tensor | None:
    return None if wrong is None else torch.where(wrong.any(), torch.nan, 0.0)


def readable(logits: Tensor, target: Target) -> Tensor:
    """Logits as the terms read them: plain, float32 or float64, and 0 under ignored voxels.

    NaN or infinity there would leak otherwise, into the gradient too.
    """
    logits = plain(logits)
    if logits.dtype not in (torch.float32, torch.float64):
        logits = logits.float()
    return logits if target.valid is None else torch.where(target.valid.unsqueeze(1), logits, 0.0)
