"""Test-time augmentation: the average over mirror images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any

import torch

from monai_calib.inferers.averaging import AveragingInferer

__all__ = ["FlipInferer", "flips_along"]


class FlipInferer(AveragingInferer):
    """Averages the probabilities of the image and of its mirror images, each flipped back.

    With ``n`` axes there are ``2^n`` images: those flipped along every subset of the axes, the image itself among them.
    Flips are exact: no voxel is interpolated.

    Flip only along axes whose direction carries no meaning for the network: those along which its training images were
    mirrored as well. In a volume read as RAS axis 0 runs from left to right. Mirroring an abdomen there puts the liver
    on the other side, and flipping a hippocampus along axis 1 makes its anterior part posterior; averages with such
    predictions are worse than one prediction. So are those of networks that have never seen a mirror image.

    Args:
        axes: spatial axes, 0 the first after the channels.
        inferer: makes the prediction of one image, see :class:`AveragingInferer`.

    Raises: ``ValueError`` for no axis, a negative one, one named twice, or one that the image does not have.

    Example:
        >>> seen = []
        >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> network = lambda x: (seen.append(x.flatten().tolist()), torch.cat([x, -x], dim=1))[1]
        >>> probability = FlipInferer(axes=(0,))(image, network).exp()
        >>> seen
        [[1.0, 2.0, 3.0, 4.0], [3.0, 4.0, 1.0, 2.0]]
        >>> torch.allclose(probability, network(image).softmax(1))  # this network works voxel by voxel
        True
    """

    def __init__(self, axes: Sequence[int], inferer: Callable[..., torch.Tensor] | None = None) -> None:
        super().__init__(inferer)
        self.flips = flips_along(axes)
        self.axes = tuple(axes)

    def predictions(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Iterator[torch.Tensor]:
        if max(self.axes) >= inputs.ndim - 2:
            raise ValueError(f"axes: expected some out of {list(range(inputs.ndim - 2))}, got {list(self.axes)}")
        for dims in self.flips:
            yield self.inferer(inputs.flip(dims), network, *args, **kwargs).flip(dims)


def flips_along(axes: Sequence[int]) -> list[list[int]]:
    """Axes of ``(B, C, *spatial)`` along which each mirror image is flipped: every subset, the empty one first.

    Raises: ``ValueError`` for no axis, a negative one, or one named twice.

    Example:
        >>> flips_along([0, 2])
        [[], [2], [4], [2, 4]]
    """
    if not axes or min(axes) < 0 or len(set(axes)) < len(axes):
        raise ValueError(
            "axes: expected spatial axes along which the training images were mirrored too, each once, such as [0] "
            f"(left and right in RAS), got {list(axes)}"
        )
    subsets = (subset for count in range(len(axes) + 1) for subset in combinations(axes, count))
    return [[axis + 2 for axis in subset] for subset in subsets]
