"""Boundary-weighted consistency: two views of an image should get the same logits, above all near boundaries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys
from torch import Tensor

from monai_calib.losses.neighborhood import outer_voxels
from monai_calib.losses.target import plain

__all__ = ["BoundaryConsistency", "boundary_nearness", "random_intensity"]


def boundary_nearness(label: Tensor, radius: int, ignore_index: int | None = None) -> Tensor:
    """``max(radius - r, 0) / radius``, r the steps (diagonal ones too) from the nearest voxel at a label change.

    Args:
        label: class numbers ``(B, *spatial)``, an integer type.
        radius: in voxels, at least 1.
        ignore_index: label value that makes no boundary.

    Returns:
        float32 ``(B, *spatial)``: 1 at a boundary, 0 from ``radius`` on.

    Example:
        >>> boundary_nearness(torch.tensor([[0, 0, 0, 0, 1, 1]]), radius=2)
        tensor([[0.0000, 0.0000, 0.5000, 1.0000, 1.0000, 0.5000]])
    """
    near = outer_voxels(label, 3, ignore_index)
    total = near.float()
    for _ in range(radius - 1):
        for axis in range(1, near.ndim):
            steps = near.shape[axis] - 1
            grown = near.clone()
            grown.narrow(axis, 0, steps).logical_or_(near.narrow(axis, 1, steps))
            grown.narrow(axis, 1, steps).logical_or_(near.narrow(axis, 0, steps))
            near = grown
        total += near
    return total / radius


def random_intensity(image: Tensor) -> Tensor:
    """Another acquisition of the same anatomy: gain and offset of up to 10 % of the spread, noise of 5 %, per image."""
    shape = (image.shape[0], *[1] * (image.ndim - 1))
    spread = image.flatten(1).std(1).view(shape)
    gain, offset = (torch.rand((2, *shape), device=image.device, dtype=image.dtype) - 0.5) * 0.2
    return image * (1 + gain) + spread * (offset + 0.05 * torch.randn_like(image))


class BoundaryConsistency:
    """Adds to the training loss how much the logits of a second view of the batch differ (BWCR).

    ``loss + mean_{N,K} lambda(r) (z - z')^2`` with ``lambda(r) = smallest + largest * max(radius - r, 0) / radius``:
    z the logits of the batch, z' those of the batch after a random change of its intensities and random flips, flipped
    back; r the distance from the nearest label boundary. Where the label is ambiguous, views disagree, and the penalty
    keeps the logits small. Attach it to a MONAI trainer; a step costs a second pass through the network (whose batch
    normalisation sees both views). Under deep supervision it reads the first output.

    Args:
        largest: weight at a boundary, on top of ``smallest``.
        smallest: weight far from boundaries.
        radius: distance in voxels over which the weight falls.
        flip: whether the second view is flipped along random spatial axes.
        intensity: changes an image ``(B, C, *spatial)`` without moving it; :func:`random_intensity` by default.
        ignore_index: label value that makes no boundary.

    Raises:
        ValueError: a negative weight, a radius below 1.

    Distances differ from the authors' code, which takes whole Euclidean ones, counts the outer side one voxel further,
    and so gives structures up to two voxels wide the smallest weight. Here distances are the largest of the axes', by
    pooling on the device; both voxels beside a boundary have distance 0, and a thin structure, all boundary, the
    largest weight. Published results are of the authors' weights.

    Source: Karani et al., MICCAI 2023; https://arxiv.org/abs/2307.08163

    Example:
        >>> from monai.engines import SupervisedTrainer
        >>> from monai_calib.losses import build_loss
        >>> network = torch.nn.Conv2d(1, 2, 3, padding=1)
        >>> data = [{"image": torch.randn(2, 1, 8, 8), "label": torch.ones(2, 1, 8, 8)}]
        >>> trainer = SupervisedTrainer(
        ...     device="cpu", max_epochs=1, train_data_loader=data, network=network,
        ...     optimizer=torch.optim.SGD(network.parameters(), 0.1), loss_function=build_loss("ce"))
        >>> BoundaryConsistency().attach(trainer)
        >>> trainer.run()
        >>> trainer.state.output[0]["consistency"] > 0
        True
    """

    def __init__(
        self,
        largest: float = 1.0,
        smallest: float = 0.01,
        radius: int = 10,
        flip: bool = True,
        intensity: Callable[[Tensor], Tensor] = random_intensity,
        ignore_index: int | None = None,
    ) -> None:
        if not (largest >= 0 and smallest >= 0):
            raise ValueError(f"Weights must not be negative, got {largest} and {smallest}.")
        if radius < 1:
            raise ValueError(f"radius must be at least 1 voxel, got {radius}.")
        self.largest = largest
        self.smallest = smallest
        self.radius = radius
        self.flip = flip
        self.intensity = intensity
        self.ignore_index = ignore_index

    def attach(self, engine: SupervisedTrainer) -> None:
        """Add the term to the loss of ``engine``, a MONAI trainer, before its backward pass."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: SupervisedTrainer) -> None:
        output = cast(dict[str, Any], engine.state.output)
        image, pred = plain(output[CommonKeys.IMAGE]), output[CommonKeys.PRED]
        logits = plain(pred[0] if isinstance(pred, (list, tuple)) else pred)
        # drawn on the host, so that a GPU is not waited for
        axes = [axis for axis in range(2, image.ndim) if self.flip and torch.rand(()) < 0.5]
        second = engine.inferer(self.intensity(image).flip(axes), engine.network)
        other = plain(second[0] if isinstance(second, (list, tuple)) else second).flip(axes)
        weight = self.smallest + self.largest * self._nearness(output[CommonKeys.LABEL], logits)
        difference = (logits.float() - other.float()) ** 2
        term = (weight.unsqueeze(1) * difference).mean()
        output["consistency"] = term.detach()
        output[CommonKeys.LOSS] = output[CommonKeys.LOSS] + term

    def _nearness(self, label: Tensor, logits: Tensor) -> Tensor:
        label = plain(label)
        if label.shape[1] == logits.shape[1] > 1:
            index = label.argmax(1)
        else:
            index = label.reshape(logits.shape[0], *logits.shape[2:])
        return boundary_nearness(index.int(), self.radius, self.ignore_index)
