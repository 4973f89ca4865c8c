"""K sigmoid channels, corrected as K problems of two classes: the sigmoid of z is the softmax of (0, z)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from monai_calib.labels import as_plain_tensor
from monai_calib.posthoc.base import Calibrator, FitRecord
from monai_calib.posthoc.files import CALIBRATOR_FORMAT
from monai_calib.posthoc.linear import LinearHead
from monai_calib.posthoc.stream import LogitCase, LogitStream

__all__ = ["PerChannel", "SigmoidStream"]


class SigmoidStream(LogitStream):
    """Gives each channel of a case as a case of two classes, logits (0, z) and labels 0 and 1, one after another.

    Args:
        channels: names of the K channels. The cases are called ``CASE, CHANNEL``.
        arguments, more: as of :class:`~.stream.LogitStream`. Logits are ``(B, K, *spatial)``, and so are labels, of 0
            and 1. Where a channel's label is ``ignore_index``, the voxel is left out of that channel.

    Raises: ``ValueError`` for a name that occurs twice; while running, ``ValueError`` naming the case for another
        number of channels, and as :class:`~.stream.LogitCase`.

    Example:
        >>> loader = [{"image": torch.zeros(1, 1, 4, 4), "label": torch.zeros(1, 2, 4, 4)}]
        >>> stream = SigmoidStream(nn.Conv2d(1, 2, 1), loader, channels=["core", "whole"])
        >>> [(case.name, tuple(case.logits.shape)) for case in stream]
        [('case_0001, core', (2, 4, 4)), ('case_0001, whole', (2, 4, 4))]
    """

    def __init__(self, *arguments: Any, channels: Sequence[str], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.channels = list(channels)
        if len(set(channels)) < len(self.channels):
            raise ValueError(f"channels: expected a name of its own for each, got {self.channels}")
        self.problems_per_case = len(self.channels)

    def problems(self, name: str, logits: Tensor, label: Any) -> Iterator[tuple[str, Tensor, Tensor]]:
        label, count = as_plain_tensor(label), len(self.channels)
        label = label[None] if count == 1 and label.shape == logits.shape[1:] else label
        if len(logits) != count:
            raise ValueError(f"case {name}: expected {count} channels of logits, got {len(logits)}")
        if label.shape != logits.shape:
            raise ValueError(
                f"case {name}: label: expected 0 and 1 in one channel for each of {count} sigmoid channels, "
                f"{tuple(logits.shape)}, got {tuple(label.shape)}. Convert class numbers with a transform, such as "
                "MONAI's ConvertToMultiChannelBasedOnBratsClassesd"
            )
        for channel, z, truth in zip(self.channels, logits.split(1), label, strict=True):
            yield f"{name}, {channel}", _two_classes(z, 0), truth


class PerChannel(Calibrator):
    """Corrects sigmoid channels, each by a correction of two classes of its own.

    Args:
        channels: fitted corrections by the channel's name, in the order of the channels.

    Attributes:
        channels: as given.
        method: that of the channels if they share one, otherwise ``per_channel``.
        head: linear, ``z_k' = w_k z_k + b_k``, if all corrections are; then it folds.

    Example:
        >>> from monai_calib.posthoc import NoCorrection, TemperatureScaling
        >>> cool = TemperatureScaling(2)
        >>> cool.set_temperature(4.0)
        >>> both = PerChannel({"core": cool, "whole": NoCorrection(2)})
        >>> both.apply(torch.tensor([[[2.0], [2.0]]])).flatten().tolist(), both.foldable
        ([0.5, 2.0], True)
    """

    method = "per_channel"

    def __init__(self, channels: Mapping[str, Calibrator]) -> None:
        self.channels = dict(channels)
        every = list(self.channels.values())
        records = [part.record for part in every]
        self.num_classes = len(every)
        methods = {part.method for part in every}
        self.method = methods.pop() if len(methods) == 1 else PerChannel.method
        self.foldable = all(part.foldable for part in every)
        self.keeps_argmax = all(part.keeps_argmax for part in every)
        self.looks_around = any(part.looks_around for part in every)
        self.slice_axis = every[0].slice_axis
        self.region = every[0].region
        self.record = FitRecord(
            status=", ".join(dict.fromkeys(record.status for record in records)),
            message="; ".join(
                f"{name}: {part.record.message}" for name, part in channels.items() if part.record.message
            ),
            region=", ".join(dict.fromkeys(record.region for record in records)),
            cases=max(record.cases for record in records),
            voxels=sum(record.voxels for record in records),
            passes=max(record.passes for record in records),
        )
        self.head = self.make_head()

    def make_head(self) -> nn.Module:
        heads = [part.head for part in self.channels.values()]
        if not self.foldable:
            return _PerChannelHead(heads)
        lines = torch.tensor([_line(head) for head in heads])
        return LinearHead(lines[:, 0].diag(), lines[:, 1])

    def observe(self, case: LogitCase) -> None:
        raise NotImplementedError("each channel is fitted on cases of its own, before they are put together")

    def end_pass(self) -> bool:
        return True

    def in_words(self) -> str:
        return "; ".join(f"{name}: {part.in_words()}" for name, part in self.channels.items())

    def to_json(self) -> dict[str, Any]:
        return {
            "format": CALIBRATOR_FORMAT,
            "method": self.method,
            "channels": {name: part.to_json() for name, part in self.channels.items()},
            "fit": asdict(self.record),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Calibrator:
        return cls({name: Calibrator.from_json(part) for name, part in data["channels"].items()})


class _PerChannelHead(nn.Module):
    """Applies each channel's head to (0, z), and returns the logit of the second class against the first."""

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """Calibrated logits ``(B, K, *spatial)``."""
        corrected = []
        for k, head in enumerate(self.heads):
            two = head(_two_classes(logits[:, k : k + 1], 1), image)
            corrected.append(two[:, 1:2] - two[:, 0:1])
        return torch.cat(corrected, 1)


def _two_classes(z: Tensor, axis: int) -> Tensor:
    return torch.cat([torch.zeros_like(z), z], axis)


def _line(head: nn.Module) -> tuple[float, float]:
    """``w, b`` of what a linear head of two classes makes of one channel: ``z' = w z + b``."""
    device = next(head.buffers(), torch.zeros(())).device
    with torch.no_grad():
        at = head(torch.tensor([[[0.0, 0.0], [0.0, 1.0]]], device=device))  # z = 0 and z = 1
    b, w_and_b = (at[0, 1] - at[0, 0]).tolist()
    return w_and_b - b, b
