"""Vector scaling whose weights and biases depend on the distance to the predicted boundary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from monai_calib.posthoc.boundary import BoundaryTemperature, DistanceHead, between_knots
from monai_calib.posthoc.newton import StreamingNewton, add_softmax

__all__ = ["BoundaryVector", "BoundaryVectorHead"]

_LARGEST = 100.0
_RIDGE = 1e-6


class BoundaryVectorHead(DistanceHead):
    """Makes ``w_k(d) l_k + b_k(d)`` of the logits, linear between knots of the signed distance ``d`` to the predicted
    boundary."""

    if TYPE_CHECKING:  # TorchScript cannot read these
        weight: Tensor
        bias: Tensor

    def __init__(self, num_classes: int, knots: Sequence[float], spacing: Sequence[float]) -> None:
        super().__init__(num_classes, knots, spacing)
        self.register_buffer("weight", torch.ones(num_classes, len(self.knots)))
        self.register_buffer("bias", torch.zeros(num_classes, len(self.knots)))

    def forward(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """Calibrated logits ``(B, K, *spatial)``; the image is not read."""
        return self.at(logits, self.distance(logits))

    def at(self, logits: Tensor, distance: Tensor) -> Tensor:
        """Calibrated logits of voxels ``(B, K, *spatial)`` at known distances ``(B, *spatial)``."""
        weight = between_knots(self.weight, distance, self.knots).to(logits.dtype)
        return weight * logits + between_knots(self.bias, distance, self.knots).to(logits.dtype)


class BoundaryVector(BoundaryTemperature):
    """A weight and a bias for each class and distance to the predicted boundary: ``softmax(w_k(d) l_k + b_k(d))``.

    :class:`BoundaryTemperature` corrects how sure a network is at each distance, but not where it puts a boundary: one
    that draws a structure a little too large stays so, and the sum of its probabilities is no volume. The biases see
    to that. At the optimum, around each knot and for each class, the probabilities add up to the number of voxels that
    bear the class, so that expected volumes are unbiased on cases like those of the fit. Linear in its parameters, so
    the likelihood is convex, and a streaming Newton fit finds its optimum. Labels near a boundary may change.

    Args:
        num_classes, region, knots, spacing: see :class:`~monai_calib.posthoc.boundary.BoundaryTemperature`.

    Raises: ``ValueError`` for knots that do not increase, or cases of differing or unknown voxel size.

    Example:
        >>> calibrator = BoundaryVector(2, knots=(-2.0, 2.0), spacing=(1.0, 1.0))
        >>> calibrator.apply(torch.tensor([[[[3.0]], [[1.0]]]])).flatten().tolist()  # not fitted: nothing changes
        [3.0, 1.0]
    """

    method = "boundary_vector"
    keeps_argmax = False

    def numbers(self, optimum: Tensor) -> dict[str, float]:
        rows = optimum.view(2, self.num_classes, len(self.knots)).tolist()
        return {
            f"{what} of class {k} at {knot:g} {self.unit}": row[k][m]
            for what, row in zip(("weight", "bias"), rows, strict=True)
            for k in range(self.num_classes)
            for m, knot in enumerate(self.knots)
        }

    def in_words(self) -> str:
        state = self.head.state_dict()
        rows = zip(state["weight"].tolist(), state["bias"].tolist(), strict=True)
        return f"by {self.unit} from the predicted boundary: " + "; ".join(
            f"class {k} times {self.by_distance(weight)} plus {self.by_distance(bias)}"
            for k, (weight, bias) in enumerate(rows)
        )

    def make_head(self) -> nn.Module:
        return BoundaryVectorHead(self.num_classes, self.knots, self.spacing or (1.0, 1.0, 1.0))

    def newton_from(self, temperature: float) -> StreamingNewton:
        shape = (self.num_classes, len(self.knots))
        start = torch.stack([torch.full(shape, 1 / temperature), torch.zeros(shape)]).double()
        high = torch.full_like(start, _LARGEST)
        low = -high
        low[0] = 0.0
        # A class that no label bears would run off to minus infinity: it stays where it is.
        absent = list(self.record.absent_classes)
        low[:, absent] = high[:, absent] = start[:, absent]
        strength = torch.full_like(start, _RIDGE)
        return StreamingNewton(start.flatten(), low.flatten(), high.flatten(), strength.flatten())

    def _add_to_newton(
        self, newton: StreamingNewton, logits: Tensor, label: Tensor, shares: Tensor, weight: Tensor | None
    ) -> None:
        classes, knots = self.num_classes, len(self.knots)
        w, b = newton.trial.to(logits).view(2, classes, knots)
        log_p = ((w @ shares) * logits + b @ shares).log_softmax(0)
        classes_of = torch.arange(classes, device=logits.device).repeat_interleave(knots).repeat(2)

        def features(part: slice) -> Tensor:
            share = shares[:, part]
            return torch.cat([(logits[:, None, part] * share).flatten(0, 1), share.repeat(classes, 1)])

        add_softmax(newton, log_p, label, weight, classes_of, features)

    def _what_is_at_bound(self) -> str:
        return (
            "some weights or biases ended at the end of their range: classes are separable or absent at some distance. "
            "Calibrate on more cases, or use boundary_temperature"
        )

    def _set(self, parameters: Tensor) -> None:
        weight, bias = parameters.float().view(2, self.num_classes, len(self.knots))
        self.head.load_state_dict({"weight": weight, "bias": bias})
