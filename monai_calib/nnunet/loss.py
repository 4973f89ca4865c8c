"""The loss that an nnU-Net trainer uses: for labels or regions, with or without ignored voxels, on every head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from monai_calib.losses import build_loss, fade_dice
from monai_calib.version import __version__

__all__ = ["CalibratedLoss", "loss_of_labels"]


def loss_of_labels(name: str, has_regions: bool, ignore_label: int | None, **arguments: Any) -> nn.Module:
    """The loss of one head, which takes targets as nnU-Net makes them.

    Args:
        name: of :func:`~monai_calib.losses.build_loss`.
        has_regions: whether the network has a sigmoid for each region; the target is then ``(B, C, *spatial)``, with an
            ignore label ``(B, C + 1, *spatial)``, of which the last channel marks ignored voxels.
        ignore_label: number of the ignore label, or None. Otherwise the target is ``(B, 1, *spatial)`` class numbers.
        arguments: of the loss.

    Raises: ``ValueError`` for a loss that reads the image, which nnU-Net does not hand on, and as ``build_loss``.

    Example:
        >>> import torch
        >>> loss = loss_of_labels("ce", has_regions=True, ignore_label=3)
        >>> target = torch.tensor([[[0, 1], [1, 1], [0, 1]]])  # two regions, and the second voxel ignored
        >>> loss(torch.zeros(1, 2, 2), target).item()  # log 2
        0.6931...
    """
    if has_regions:
        ignored: dict[str, Any] = {"activation": "sigmoid", "ignore_channel": ignore_label is not None}
    else:
        ignored = {} if ignore_label is None else {"ignore_index": ignore_label}
    loss: nn.Module = build_loss(name, **ignored, **arguments)
    if loss.needs_image:
        raise ValueError(
            f"{name}: this loss reads the image, which nnU-Net does not give to a loss. Take another prior."
        )
    return loss


class CalibratedLoss:
    """Part of a trainer that replaces nnU-Net's loss, to stand before any trainer of nnU-Net among the bases.

    The loss of a head is replaced; the heads of deep supervision, and their weights, stay nnU-Net's.

    Attributes:
        loss_name: name of the loss, see :func:`~monai_calib.losses.build_loss`.
        loss_arguments: what differs from its defaults.

    Example:
        ``class nnUNetTrainerDA5SVLS(CalibratedLoss, nnUNetTrainerDA5): loss_name = "dice_ce+svls"``
    """

    loss_name: str = "recommended"
    loss_arguments: Mapping[str, Any] = {}

    # what nnU-Net's trainer brings
    label_manager: Any
    device: Any
    enable_deep_supervision: bool
    loss: nn.Module
    current_epoch: int
    num_epochs: int
    num_iterations_per_epoch: int

    def _build_loss(self) -> nn.Module:
        whole: nn.Module = super()._build_loss()  # type: ignore[misc]
        labels = self.label_manager
        own = loss_of_labels(self.loss_name, labels.has_regions, labels.ignore_label, **self.loss_arguments)
        own = own.to(self.device)
        said = "".join(f", {key}={value!r}" for key, value in self.loss_arguments.items())
        self.print_to_log_file(f"Loss of monai_calib {__version__}: {self.loss_name}{said}")  # type: ignore[attr-defined]
        if not self.enable_deep_supervision:
            return own
        whole.loss = own
        return whole

    def on_train_epoch_start(self) -> None:
        """Tell the loss how far the training is, for a Dice that fades."""
        super().on_train_epoch_start()  # type: ignore[misc]
        steps = self.num_epochs * self.num_iterations_per_epoch
        fade_dice(self.loss, self.current_epoch / self.num_epochs, steps)
