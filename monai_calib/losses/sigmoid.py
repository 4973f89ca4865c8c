"""Losses of sigmoid channels: each channel is a problem of two classes, to which the softmax losses apply."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from monai_calib.labels import as_plain_tensor, check_label

from .adaptive import AdaptivePenalty
from .base import ConstrainedLoss
from .dice_plus_plus import DSCPlusPlus
from .l1ace import BinnedError
from .logit_norm import NormalizedCrossEntropy
from .mdca import FrequencyGap
from .meep import ErroneousConfidence
from .soft_dice import SoftDice
from .target import check_logits, plain

__all__ = ["SigmoidLoss"]

REFUSED: dict[type[nn.Module], str] = {
    NormalizedCrossEntropy: "of one logit divided by its length only the sign is left",
    AdaptivePenalty: "it learns a multiplier for each softmax class, and a channel is none",
    FrequencyGap: "it is one number of the whole batch, in which channels that are too sure and too unsure cancel",
    ErroneousConfidence: "it is one mean over the wrong voxels of the batch, in which channels with many would rule",
}
"""Terms that mean nothing, or something else, over channels that are folded into the batch."""
IGNORED = 255


class SigmoidLoss(nn.Module):
    """A loss of sigmoid channels, such as regions that overlap: the two-class loss of each channel, averaged.

    The sigmoid of a logit z is the softmax of ``(-z/2, z/2)``, off and on. So with ``loss`` the loss of two classes,
    ``mean_c loss((-z_c/2, z_c/2), y_c)``: channels are folded into the batch, and everything that ``loss`` can do,
    it does. Written out, with ``p = sigmoid(z)`` and tau the share of the neighbours that bear the channel's label:

    - cross-entropy: ``softplus(z) - y z``, the binary cross-entropy of each channel
    - MbLS: ``relu(|z| - margin) / 2``, the mean over off and on
    - NACL: ``(|tau - z/2| + |1 - tau + z/2|) / 2``

    Nothing changes if a channel and its label are turned round. Terms that are one number a class (Dice, DSC++,
    mL1-ACE) are those of the channel itself and not of its complement, as MONAI's with ``sigmoid=True``.

    Args:
        loss: a loss of two classes, of which a copy is kept.
        ignore_channel: whether the label has one channel more than the logits, the last, that is 1 where a voxel is
            left out of every channel: nnU-Net's label of regions with an ignore label. Without it, a voxel whose label
            is the ``ignore_index`` of ``loss`` is left out of that channel.

    Shape: logits ``(B, C, *spatial)``; label of 0 and 1 in the same shape, of any type, or ``(B, C + 1, *spatial)``
    with ``ignore_channel``; of one channel also ``(B, *spatial)``; image ``(B, I, *spatial)``. Returns a scalar, or
    ``(B, C, *spatial)`` with ``reduction="none"``.

    Attributes:
        loss: the loss of two classes.
        needs_image: as of :class:`ConstrainedLoss`.

    Raises:
        ValueError: for ``logitnorm``, ``cals``, ``crac``, ``mdca`` and ``meep``, which are none of a single channel,
            for class weights and for ``include_background=False``, since a channel has neither classes nor a
            background; while running, for a label in another shape or with values other than 0 and 1 (on a GPU the
            loss is NaN then, as for :class:`ConstrainedLoss`).

    Example:
        >>> from monai_calib.losses import build_loss
        >>> loss = build_loss("mbls", margin=1.0, activation="sigmoid")
        >>> logits, label = torch.tensor([[[3.0], [0.0]]]), torch.tensor([[[1], [1]]])
        >>> loss(logits, label).item()  # (0.0486 + 0.1 * (3 - 1) / 2 + log 2) / 2
        0.4208...
    """

    def __init__(self, loss: ConstrainedLoss, ignore_channel: bool = False) -> None:
        super().__init__()
        if ignore_channel and loss.ignore_index is not None:
            raise ValueError(
                "ignore_channel: expected no ignore_index beside it, since the channel marks what is left out."
            )
        self.loss = copy.deepcopy(loss)
        self.ignore_channel = ignore_channel
        for part in self.loss.modules():
            reason = next((text for kind, text in REFUSED.items() if isinstance(part, kind)), None)
            if reason is not None:
                raise ValueError(f"activation='sigmoid': {type(loss).__name__} cannot be had of channels: {reason}.")
            if isinstance(part, ConstrainedLoss):
                _refuse_classes(part)
                part.ignore_index = IGNORED if ignore_channel else part.ignore_index
            elif isinstance(part, SoftDice | DSCPlusPlus | BinnedError):
                part.include_background = False  # one number a class: not that of the channel's complement

    @property
    def needs_image(self) -> bool:
        return self.loss.needs_image

    @property
    def alpha(self) -> float:
        """Weight of the penalty, for :class:`~monai_calib.handlers.AlphaSchedule`."""
        return self.loss.alpha

    @alpha.setter
    def alpha(self, value: float) -> None:
        self.loss.alpha = value

    def forward(self, logits: Tensor, label: Tensor, image: Tensor | None = None) -> Tensor:
        """The loss of a batch."""
        check_logits(logits)
        batch, channels, *spatial = logits.shape
        truth = self._folded_label(label, batch, channels, spatial)
        half = plain(logits).reshape(batch * channels, *spatial) / 2
        if image is not None:
            image = as_plain_tensor(image).repeat_interleave(channels, 0)
        value: Tensor = self.loss(torch.stack([-half, half], 1), truth, image)
        return value.reshape(batch, channels, *spatial) if self.loss.reduction == "none" else value

    def _folded_label(self, label: Tensor, batch: int, channels: int, spatial: list[int]) -> Tensor:
        """0 and 1, or what is ignored, ``(B C, *spatial)``."""
        given = channels + self.ignore_channel
        if label.shape != (batch, given, *spatial) and not (given == 1 and label.shape == (batch, *spatial)):
            raise ValueError(
                f"label: expected 0 and 1 in one channel for each of {channels} sigmoid channels"
                f"{' and a last one that marks ignored voxels' if self.ignore_channel else ''}, "
                f"{(batch, given, *spatial)}, got {tuple(label.shape)}. Convert class numbers to channels, or "
                "leave out activation='sigmoid'."
            )
        label = as_plain_tensor(label)
        if self.ignore_channel:
            ignored = check_label(label[:, -1:], 2, what="label: its last channel, which marks ignored voxels")
            wide = label.to(torch.int16) if label.dtype in (torch.bool, torch.int8) else label
            label = wide[:, :-1].masked_fill(ignored.index == 1, IGNORED)
            if ignored.wrong is not None:  # not looked at: no class of the channels either
                label = label.masked_fill(ignored.wrong, 2)
        return label.reshape(batch * channels, *spatial)

    def extra_repr(self) -> str:
        return f"ignore_channel={self.ignore_channel}"


def _refuse_classes(part: ConstrainedLoss) -> None:
    if part.weight is not None:
        raise ValueError(
            "activation='sigmoid': weight is one number per softmax class, and a channel has none. Leave it out."
        )
    if not part.include_background:
        raise ValueError(
            "activation='sigmoid': no channel is the background, so include_background=False leaves out nothing. Leave "
            "a channel out of logits and label instead."
        )
