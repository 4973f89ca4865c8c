"""The reliability diagram as numbers, with bands."""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import torch

from monai_calib.metrics.histogram import CalibrationHistogram

__all__ = ["ReliabilityCurve", "reliability_curve", "wilson_interval"]


class ReliabilityCurve(NamedTuple):
    """One value a bin, ``(num_bins,)``; NaN where a bin is empty. ``count`` is int64, all else float64."""

    lower: torch.Tensor
    upper: torch.Tensor
    count: torch.Tensor  # type: ignore[assignment]
    confidence: torch.Tensor
    accuracy: torch.Tensor
    accuracy_low: torch.Tensor
    accuracy_high: torch.Tensor


def reliability_curve(
    hist: CalibrationHistogram, num_bins: int = 15, class_index: int | None = None, level: float = 0.95
) -> ReliabilityCurve:
    """Mean confidence and accuracy of each bin, with Wilson's interval of the accuracy.

    The interval takes voxels as independent, which neighbours are not: it is a lower bound of the true spread. For
    bands over cases see :func:`monai_calib.metrics.bootstrap.bootstrap_reliability`.

    Args:
        num_bins: a divisor of the histogram's bins; ``ValueError`` otherwise.
        class_index: a class, or ``None`` for the top label.
        level: coverage of the interval.

    Example:
        >>> hist = CalibrationHistogram(2)
        >>> hist.update(torch.tensor([[[0.7], [0.3]]]), torch.zeros(1, 1), from_logits=False)
        >>> curve = reliability_curve(hist, num_bins=2)
        >>> curve.confidence, curve.accuracy_low
        (tensor([   nan, 0.7000], dtype=torch.float64), tensor([   nan, 0.2065], dtype=torch.float64))
    """
    bins = hist.bins(num_bins, class_index)
    low, high = wilson_interval(bins.hits, bins.count, level)
    return ReliabilityCurve(
        lower=bins.edges[:-1],
        upper=bins.edges[1:],
        count=bins.count,
        confidence=bins.confidence / bins.count,
        accuracy=bins.hits.double() / bins.count,
        accuracy_low=low,
        accuracy_high=high,
    )


def wilson_interval(hits: torch.Tensor, count: torch.Tensor, level: float = 0.95) -> tuple[torch.Tensor, torch.Tensor]:
    """Wilson's score interval of a proportion: ``(p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)``.

    NaN where ``count`` is 0. Source: Wilson, Journal of the American Statistical Association 22, 1927.

    Example:
        >>> low, high = wilson_interval(torch.tensor([8]), torch.tensor([10]))
        >>> round(float(low), 4), round(float(high), 4)
        (0.4902, 0.9433)
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected between 0 and 1, got {level}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    n = count.double()
    p = hits.double() / n
    centre = p + z * z / (2 * n)
    spread = z * (p * (1 - p) / n + (z / (2 * n)).square()).sqrt()
    low, high = (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)
    # Of no hit the lower bound is 0, and of hits only the upper is 1; rounding would leave them a little inside.
    none, all_ = (hits == 0) & (count > 0), (hits == count) & (count > 0)
    return low.masked_fill(none, 0.0), high.masked_fill(all_, 1.0)
