"""Sliding windows that end in probabilities, averaged as logits or as probabilities where windows overlap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from monai.inferers import SlidingWindowInferer

from monai_calib.metrics.inputs import Activation

__all__ = ["ProbabilitySlidingWindowInferer", "activate_in_slabs"]

_SLAB_VOXELS = 2**20


class ProbabilitySlidingWindowInferer(SlidingWindowInferer):
    """MONAI's sliding window, which returns probabilities and lets one choose what overlapping windows average.

    MONAI averages what the network returns, usually logits. With window weights ``w_i`` and logits ``l_i``,

    - ``average="logits"``: ``softmax(sum_i w_i l_i)``, what a bundle with ``Activations`` in its postprocessing does;
    - ``average="probabilities"``: ``sum_i w_i softmax(l_i)``, a mixture, less sure where windows disagree.

    Logits 4 and -3 against 0, say, give 0.622 the one way and 0.515 the other: confidences, not only labels, depend
    on it. The output holds probabilities both ways, so the postprocessing has no ``Activations`` and handlers read
    ``from_logits=False``.

    A volume whose stitched output does not fit on the device is stitched on the CPU (``device="cpu"``, or
    ``cpu_thresh``); there it is activated slab by slab in place, and ``CalibrationHandler`` follows it and measures in
    slabs as well.

    Args:
        roi_size: size of a window.
        average: ``"probabilities"`` or ``"logits"``.
        activation: ``"softmax"`` over the channels, or ``"sigmoid"`` of each.
        kwargs: everything else ``monai.inferers.SlidingWindowInferer`` takes: ``overlap``, ``mode``, ``device`` ...

    Raises: ``ValueError`` on another ``average`` or ``activation``, ``TypeError`` for a network that does not return
        one tensor.

    Example:
        >>> constant = lambda window: torch.stack([0 * window[:, 0] + window.amax(), 0 * window[:, 0]], dim=1)
        >>> volume = torch.tensor([4.0, -3.0, -3.0]).view(1, 1, 3)  # two windows of 2: logits 4 and -3, average 0.5
        >>> for average in ("logits", "probabilities"):
        ...     inferer = ProbabilitySlidingWindowInferer((2,), average=average, overlap=0.5)
        ...     print(round(inferer(volume, constant)[0, 0, 1].item(), 3))
        0.622
        0.515
    """

    def __init__(
        self,
        roi_size: Any,
        average: Literal["probabilities", "logits"] = "probabilities",
        activation: Activation = "softmax",
        **kwargs: Any,
    ) -> None:
        if average not in ("probabilities", "logits"):
            raise ValueError(f"average: expected 'probabilities' or 'logits', got {average!r}")
        if activation not in ("softmax", "sigmoid"):
            raise ValueError(f"activation: expected 'softmax' or 'sigmoid', got {activation!r}")
        super().__init__(roi_size, **kwargs)
        self.average = average
        self.activation: Activation = activation

    def __call__(  # type: ignore[override]
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        def predict(window: torch.Tensor, *more: Any, **named: Any) -> torch.Tensor:
            output = network(window, *more, **named)
            if not isinstance(output, torch.Tensor):
                raise TypeError(f"expected a network that returns one tensor of logits, got {type(output).__name__}")
            # Half precision would round confidences near 1, which decide the calibration of easy voxels.
            output = output.float()
            return output if self.average == "logits" else _activate(output, self.activation)

        stitched = super().__call__(inputs, predict, *args, **kwargs)
        if not isinstance(stitched, torch.Tensor):
            raise TypeError(f"expected one stitched tensor, got {type(stitched).__name__}")
        return activate_in_slabs(stitched, self.activation) if self.average == "logits" else stitched


def activate_in_slabs(logits: torch.Tensor, activation: Activation = "softmax") -> torch.Tensor:
    """Turn logits ``(B, C, *spatial)`` into probabilities in place, a slab of the first spatial axis at a time.

    Beside the volume, only a slab of about a million voxels is held. Returns its argument.

    Example:
        >>> activate_in_slabs(torch.zeros(1, 4, 2, 2))[0, :, 0, 0].tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    step = max(1, _SLAB_VOXELS // max(1, logits.shape[3:].numel()))
    for start in range(0, logits.shape[2], step):
        slab = logits[:, :, start : start + step]
        slab.copy_(_activate(slab, activation))
    return logits


def _activate(logits: torch.Tensor, activation: Activation) -> torch.Tensor:
    return logits.softmax(1) if activation == "softmax" else logits.sigmoid()
