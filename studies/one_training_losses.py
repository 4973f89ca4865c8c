"""Losses that were tried for :mod:`one_training` and are not part of the package.

With ``PYTHONPATH=studies``, as a setting of a comparison:
``--losses dice_ce --set 'loss=$__import__("one_training_losses").ConfidenceGap(either=True)'``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_calib.losses import build_loss
from monai_calib.losses.neighborhood import outer_voxels
from monai_calib.losses.target import prepare, readable


class WeightedBrier(nn.Module):
    """Cross-entropy plus ``mean_k sum (s - y)^2 / (sum s^2 + sum y^2)``, the fraction's lower part held constant.

    That is Dice with squares (V-Net) made proper: its derivative by s is 0 at s = P(y), whatever the size of a class.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cross_entropy = build_loss("ce")

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        target = prepare(logits, label)
        values = readable(logits, target)
        prob, truth = values.softmax(1).flatten(2), target.one_hot(values.dtype).flatten(2)
        size = (prob.detach().square().sum(2) + truth.square().sum(2)).clamp_min(1e-5)
        value: Tensor = self.cross_entropy(logits, label) + ((prob - truth).square().sum(2) / size).mean()
        return value


class ConfidenceGap(nn.Module):
    """Dice and cross-entropy, held to a mean confidence that equals the accuracy where labels meet.

    ``Dice + CE + multiplier * h``, h the mean of ``max_k s_k - [argmax_k s_k = y]`` over the voxels of the batch whose
    neighbourhood holds more than one predicted label, or with ``either`` more than one predicted or true one. With each
    batch the multiplier of the constraint ``h = 0`` rises by ``rate * h``: an over-confident network is drawn back, an
    under-confident one pushed on.
    """

    multiplier: Tensor

    def __init__(self, either: bool = False, rate: float = 0.1) -> None:
        super().__init__()
        self.loss = build_loss("dice_ce")
        self.either = either
        self.rate = rate
        self.register_buffer("multiplier", torch.zeros(()))

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        target = prepare(logits, label)
        confidence, guess = readable(logits, target).softmax(1).max(1)
        near = outer_voxels(guess, 3)
        if self.either:
            near = near | target.outer(3)
        voxels = near.sum().clamp_min(1)
        gap = ((confidence - (guess == target.index).to(confidence.dtype)) * near).sum().detach() / voxels
        if torch.is_grad_enabled():
            self.multiplier += self.rate * gap
        value: Tensor = self.loss(logits, label) + self.multiplier.clone() * (confidence * near).sum() / voxels
        return value
