"""Maps of each class's probability read off a calibration histogram: histogram binning and isotonic regression."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from monai_calib.metrics.histogram import Bins, CalibrationHistogram
from monai_calib.metrics.regions import Region
from monai_calib.metrics.scores import nll
from monai_calib.posthoc.base import Calibrator
from monai_calib.posthoc.stream import LogitCase
from monai_calib.posthoc.temperature import absent_classes

__all__ = ["HistogramBinning", "HistogramHead", "IsotonicHead", "IsotonicRegression", "pool_adjacent_violators"]

# Log-odds of the isotonic head's nodes: from 6e-6 to its complement, near float32's resolution below 1.
_LIMIT, _NODES = 12.0, 241


class HistogramHead(nn.Module):
    """Replaces each class's probability by the value of its bin, and divides by their sum; gives log-probabilities."""

    table: Tensor

    def __init__(self, num_classes: int, num_bins: int) -> None:
        super().__init__()
        self.num_bins = num_bins
        self.register_buffer("table", ((torch.arange(num_bins) + 0.5) / num_bins).repeat(num_classes, 1))

    def forward(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """Logarithms of calibrated probabilities ``(B, K, *spatial)``; the image is not read."""
        p = torch.softmax(logits, 1).flatten(2)
        bins = (torch.ceil(p * self.num_bins) - 1).clamp(0, self.num_bins - 1).long()
        q = self.table.unsqueeze(0).expand(p.shape[0], -1, -1).gather(2, bins)
        return (q / q.sum(1, keepdim=True)).log().reshape(logits.shape)


class IsotonicHead(nn.Module):
    """Maps each class's log-odds by a piecewise linear function, and divides probabilities by their sum."""

    table: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.limit, self.nodes = _LIMIT, _NODES
        self.register_buffer("table", torch.linspace(-_LIMIT, _LIMIT, _NODES).repeat(num_classes, 1))

    def forward(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """Logarithms of calibrated probabilities ``(B, K, *spatial)``; the image is not read."""
        log_p = torch.log_softmax(logits, 1).flatten(2)
        log_odds = log_p - (1 - log_p.exp()).clamp(min=1e-7).log()
        place = (log_odds.clamp(-self.limit, self.limit) + self.limit) * ((self.nodes - 1) / (2 * self.limit))
        index = place.floor().clamp(0, self.nodes - 2).long()
        share = place - index
        table = self.table.unsqueeze(0).expand(log_p.shape[0], -1, -1)
        mapped = table.gather(2, index) * (1 - share) + table.gather(2, index + 1) * share
        log_q = nn.functional.logsigmoid(mapped)
        return torch.log_softmax(log_q, 1).reshape(logits.shape)


class _FromHistogram(Calibrator):
    """Fitted from one pass, or from a histogram that an evaluation has left behind."""

    def __init__(self, num_classes: int, region: str | Region | None = None) -> None:
        super().__init__(num_classes, region)
        self._histogram = CalibrationHistogram(num_classes, strict=False)

    @abstractmethod
    def table_row(self, histogram: CalibrationHistogram, class_index: int) -> Tensor:
        """The map of one class, as the head stores it."""

    def observe(self, case: LogitCase) -> None:
        self._histogram.merge(case.histogram(self.region))

    def end_pass(self) -> bool:
        self.fit_histogram(self._histogram)
        return True

    def sums(self) -> dict[str, Tensor]:
        return {**self._histogram.sums.tensors(), "updates": torch.tensor(self._histogram.updates)}

    def add_sums(self, sums: Mapping[str, Tensor]) -> None:
        self._histogram.merge(CalibrationHistogram.from_state({**self._histogram.settings(), **sums}))

    def fit_histogram(self, histogram: CalibrationHistogram) -> None:
        """Fit from a histogram, such as ``pooled`` of a ``calibration.json``, whose region the caller knows.

        A class that no label bears keeps its probabilities, with a warning: mapping them all to 0 would only say that
        this sample has none.

        Raises: ``ValueError`` for another number of classes, or a histogram without voxels.
        """
        if histogram.num_classes != self.num_classes or histogram.activation != "softmax":
            raise ValueError(
                f"expected a softmax histogram of {self.num_classes} classes, got {histogram.num_classes} "
                f"({histogram.activation})"
            )
        if not histogram.voxels:
            raise ValueError(f"nothing to fit on: {histogram.describe()}")
        table = self.head.state_dict()["table"].clone()
        absent = absent_classes(histogram.class_voxels())
        for k in set(range(self.num_classes)) - set(absent):
            table[k] = self.table_row(histogram, k).float()
        self.head.load_state_dict({"table": table})
        self.record.nll_before, self.record.voxels = nll(histogram), histogram.voxels
        self.record.status, self.record.absent_classes = "converged", absent
        if absent:
            self.warn(
                "converged",
                f"no label of the region bears class {', '.join(map(str, absent))}: its probabilities stay as they are",
            )


class HistogramBinning(_FromHistogram):
    """Histogram binning: each class's probability becomes the share of hits in its bin; then they are divided by their
    sum.

    Bins (lower, upper] of equal width. One voxel that agrees with the bin's mean is added to each bin, so that empty
    ones change nothing and none ends at exactly 0. Labels may change.

    Args:
        num_classes, region: see :class:`~monai_calib.posthoc.base.Calibrator`.
        num_bins: 10, 15, 20, 30 or another divisor of 960.

    Source: Zadrozny and Elkan, ICML 2001.

    Example:
        >>> histogram = CalibrationHistogram(2)
        >>> p = torch.full((1, 1, 98), 0.75)  # says 0.75, right in half of the voxels
        >>> histogram.update(torch.cat([p, 1 - p], 1), torch.arange(98)[None] % 2, from_logits=False)
        >>> binning = HistogramBinning(2, num_bins=10)
        >>> binning.fit_histogram(histogram)
        >>> round(binning.apply(torch.tensor([[[0.75], [0.25]]]).log()).exp()[0, 0, 0].item(), 2)
        0.5
    """

    method = "histogram_binning"

    def __init__(self, num_classes: int, region: str | Region | None = None, num_bins: int = 15) -> None:
        if num_bins < 1 or 960 % num_bins:
            raise ValueError(f"num_bins: expected a divisor of 960, such as 10, 15 or 20, got {num_bins}")
        self.num_bins = num_bins
        super().__init__(num_classes, region)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "num_bins": self.num_bins}

    def make_head(self) -> nn.Module:
        return HistogramHead(self.num_classes, self.num_bins)

    def table_row(self, histogram: CalibrationHistogram, class_index: int) -> Tensor:
        bins = histogram.bins(self.num_bins, class_index)
        middle = (bins.edges[1:] + bins.edges[:-1]) / 2
        mean = torch.where(bins.count > 0, bins.confidence / bins.count.clamp_min(1), middle)
        return (bins.hits + mean) / (bins.count + 1)


class IsotonicRegression(_FromHistogram):
    """Isotonic regression: the best map of each class's probability that never falls; then they are divided by their
    sum.

    The fit pools adjacent violators over the histogram's 1008 fine bins, so it needs no sorted list of voxels. Pooled
    blocks are joined by straight lines in log-odds, with equal shifts beyond the outermost, so that an order
    of probabilities is kept. One voxel that agrees is added to each block. Labels may change, since classes are mapped
    one by one.

    Args: see :class:`~monai_calib.posthoc.base.Calibrator`.
    Source: Zadrozny and Elkan, KDD 2002.

    Example:
        >>> histogram = CalibrationHistogram(2)
        >>> p = torch.full((1, 1, 98), 0.75)  # says 0.75, right in half of the voxels
        >>> histogram.update(torch.cat([p, 1 - p], 1), torch.arange(98)[None] % 2, from_logits=False)
        >>> isotonic = IsotonicRegression(2)
        >>> isotonic.fit_histogram(histogram)
        >>> round(isotonic.apply(torch.tensor([[[0.75], [0.25]]]).log()).exp()[0, 0, 0].item(), 2)
        0.5
    """

    method = "isotonic"

    def make_head(self) -> nn.Module:
        return IsotonicHead(self.num_classes)

    def table_row(self, histogram: CalibrationHistogram, class_index: int) -> Tensor:
        confidence, accuracy = pool_adjacent_violators(histogram.bins(None, class_index))
        x = torch.logit(confidence, 1e-6)
        y = torch.logit(accuracy, 1e-6)
        nodes = torch.linspace(-_LIMIT, _LIMIT, _NODES, dtype=torch.float64)
        inner = nodes.clamp(float(x[0]), float(x[-1]))
        right = torch.searchsorted(x, inner).clamp(1, max(1, len(x) - 1))
        if len(x) == 1:
            return nodes + (y - x)
        left = right - 1
        mapped = y[left] + (y[right] - y[left]) * (inner - x[left]) / (x[right] - x[left])
        return mapped + (nodes - inner)


def pool_adjacent_violators(bins: Bins) -> tuple[Tensor, Tensor]:
    """Mean confidence and accuracy of the blocks of isotonic regression, both increasing, float64.

    Example:
        >>> hits, confidence = torch.tensor([0, 6, 3]), torch.tensor([1.0, 4.0, 8.0])
        >>> bins = Bins(torch.linspace(0, 1, 4), torch.tensor([9, 9, 9]), hits, confidence)
        >>> [[round(v, 3) for v in row.tolist()] for row in pool_adjacent_violators(bins)]
        [[0.111, 0.667], [0.011, 0.509]]
    """
    blocks: list[list[float]] = []
    occupied = bins.count > 0
    rows = zip(
        bins.count[occupied].tolist(), bins.hits[occupied].tolist(), bins.confidence[occupied].tolist(), strict=True
    )
    for count, hits, confidence in rows:
        blocks.append([count, hits, confidence])
        while len(blocks) > 1 and blocks[-2][1] * blocks[-1][0] >= blocks[-1][1] * blocks[-2][0]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    count, hits, confidence = torch.tensor(blocks, dtype=torch.float64).T
    mean = confidence / count
    accuracy = (hits + mean) / (count + 1)
    # The added voxel may turn the order of two small blocks round.
    return mean, torch.cummax(accuracy, 0).values
