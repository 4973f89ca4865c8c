"""Judge a correction as the network will run it, window by window, where windows overlap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monai_calib.labels import top_class
from monai_calib.metrics.overlap import dice_coefficients
from monai_calib.posthoc.auto import MOST_LABELS_CHANGED, Held, groups_of, judge
from monai_calib.posthoc.base import Calibrator
from monai_calib.posthoc.export import CalibratedNetwork
from monai_calib.posthoc.stream import LogitCase, LogitStream

__all__ = ["windows_overlap", "worse_in_windows"]

MOST_IN_WINDOWS = 0.05
"""Share of the predicted foreground whose label may change where windows are averaged and Dice does not fall."""


def windows_overlap(grid: Sequence[int], window: Sequence[int], slice_axis: int | None = None) -> bool:
    """Tell whether an image of this grid is seen in more than one window.

    Example:
        >>> windows_overlap((64, 64, 12), (64, 64), slice_axis=2), windows_overlap((64, 80), (64, 64))
        (False, True)
    """
    seen = [size for axis, size in enumerate(grid) if axis != slice_axis]
    return any(size > of_window for size, of_window in zip(seen, window, strict=True))


def worse_in_windows(calibrator: Calibrator, stream: LogitStream) -> list[str]:
    """Tell what a fitted correction makes worse when its head acts on each window before windows are averaged.

    A correction is fitted and chosen on the logits of whole images. One that is linear in the logits commutes with the
    average of windows; the others do not, since they see other labels, other distances, in each window. This runs the
    network once more, with and without the head.

    Where windows differ on a label, a correction weighs their votes anew: up to 5 % of the predicted foreground may
    change its label if the mean Dice of the cases does not fall, else no more than :func:`~.auto.judge` lets pass.

    Args:
        calibrator: a fitted one.
        stream: of the network as trained, with the inferer that averages windows.

    Returns: sentences of :func:`~.auto.judge`, each ending in "with windows averaged"; none is good.
    """
    both = _WithAndWithout(calibrator, stream)
    before, after = Held(), Held()
    names: list[tuple[str, str]] = []
    dice: list[tuple[float, float]] = []
    for case in both:
        corrected = both.corrected
        for one in case.by_rater():
            before.add(one, one.logits)
            after.add(one, corrected)
            names.append((case.name, case.subject))
            dice.append((_dice(one, one.predicted), _dice(one, top_class(corrected))))
    known = [pair for pair in dice if not math.isnan(pair[0])]
    falls = not known or math.fsum(second - first for first, second in known) < 0
    worse = judge(before, after, groups_of(names), MOST_LABELS_CHANGED if falls else MOST_IN_WINDOWS)
    return [f"{sentence}, with windows averaged" for sentence in worse]


def _dice(case: LogitCase, predicted: Tensor) -> float:
    """Mean Dice of the foreground classes that the label holds; NaN if it holds none."""
    found = dice_coefficients(predicted, case.label, len(case.logits), case.mask("all"))
    known = [value for value in found if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


class _WithAndWithout(LogitStream):
    """A stream whose cases have the network's logits, and beside them those of the network with its head."""

    def __init__(self, calibrator: Calibrator, stream: LogitStream) -> None:
        super().__init__(
            _Both(stream.network, calibrator),
            stream.loader,
            stream.inferer,
            stream.device,
            stream.amp,
            stream.image_key,
            stream.label_key,
            stream.ignore_index,
            stream.spacing,
        )
        self.corrected = torch.empty(0)

    def problems(self, name: str, logits: Tensor, label: Any) -> Iterator[tuple[str, Tensor, Any]]:
        own, self.corrected = logits.chunk(2)
        yield name, own, label


class _Both(nn.Module):
    """Logits as trained and corrected ones, one after the other along the channels, so that windows of both average."""

    def __init__(self, network: nn.Module, calibrator: Calibrator) -> None:
        super().__init__()
        self.calibrated = CalibratedNetwork(network, calibrator)

    def forward(self, image: Tensor) -> Tensor:
        logits = self.calibrated.network(image)
        logits = logits[0] if isinstance(logits, list) else logits
        return torch.cat([logits, self.calibrated.head(logits, image)], 1)
