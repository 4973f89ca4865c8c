"""Several raters of one case: a prediction against each of them, and against what they differ among themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from monai_calib.labels import check_label
from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.metric import Metric, mean_without_nan
from monai_calib.metrics.protocols import METRICS, measure

__all__ = [
    "RATER_METRICS",
    "agreement",
    "dice_table",
    "measure_raters",
    "rater_metrics",
    "thresholded_dice",
    "volume_crps",
    "volume_crps_normal",
]

RATER_METRICS = {
    "dice_raters": ("DSC against each rater, mean", 1),
    "dice_between_raters": ("DSC between raters", 0),
    "volume_crps": ("CRPS of the expected volume against the raters' volumes, relative", -1),
}
"""Names, words and directions of what is measured of a case as a whole, per foreground class."""
_SLAB = 2**20  # voxels, which float32 counts exactly


def rater_metrics(classes: Sequence[str], whole_volume: bool) -> list[Metric]:
    """The metrics of a case with raters beside those of a protocol; volumes where the whole volume is measured."""
    return [
        Metric(name, name, per="class", classes=tuple(classes[1:]), label=words, direction=direction)
        for name, (words, direction) in RATER_METRICS.items()
        if whole_volume or name != "volume_crps"
    ]


def measure_raters(
    metrics: Iterable[Metric],
    prediction: Tensor,
    raters: Tensor,
    shares: Tensor,
    empty: CalibrationHistogram,
    from_logits: bool = False,
) -> dict[str, list[float]]:
    """Values of the metrics that need each rater, in one region.

    Kinds *against the raters* (``rater_ece``) are those of R plain histograms, one a rater, averaged over the raters
    that have a value. Kinds *of the raters* (``least_nll``, ``least_brier``) are those of their mean taken as the
    prediction: ``-sum_k m_k log m_k`` and ``sum_k m_k (1 - m_k)`` a voxel, the least that any prediction can reach
    against these raters.

    Args:
        metrics: of a protocol, whose kinds are not against the label.
        prediction: ``(K, n)``.
        raters: class numbers ``(R, n)``.
        shares: their mean ``(K, n)``, see :func:`monai_calib.labels.mean_label`.
        empty: a histogram of the kind to fill.
        from_logits: whether the prediction is logits.

    Example:
        >>> ece = Metric("rater_ece_all_15bins", "rater_ece", "all", 15)
        >>> half, raters = torch.full((2, 4), 0.5), torch.tensor([[0, 0, 0, 0], [1, 1, 0, 0]])
        >>> measure_raters([ece], half, raters, half, CalibrationHistogram(2))  # 0.5 and 0.0
        {'rater_ece_all_15bins': [0.25]}
    """
    wanted: dict[str, list[Metric]] = {"raters": [], "ceiling": []}
    for metric in metrics:
        wanted[METRICS[metric.kind].against].append(metric)
    values: dict[str, list[float]] = {}
    if wanted["raters"]:
        rows: dict[str, list[list[float]]] = {metric.name: [] for metric in wanted["raters"]}
        for rater in raters:
            histogram = empty.empty_like()
            histogram.update(prediction[None], rater[None], from_logits=from_logits, strict=False)
            for metric in wanted["raters"]:
                rows[metric.name].append(measure(metric, histogram))
        values |= {name: _mean_of_rows(of_raters) for name, of_raters in rows.items()}
    if wanted["ceiling"]:
        histogram = empty.empty_like()
        histogram.update(shares[None], shares[None], from_logits=False, strict=False)
        values |= {metric.name: measure(metric, histogram) for metric in wanted["ceiling"]}
    return values


def agreement(
    predicted: Tensor,
    raters: Tensor,
    num_classes: int,
    ignore_index: int | None = None,
    volumes: Sequence[float] | None = None,
) -> dict[str, list[float]]:
    """Values of :data:`RATER_METRICS` for one case.

    Args:
        predicted: class numbers ``(*spatial)``.
        raters: class numbers ``(R, *spatial)``.
        num_classes: background included.
        ignore_index: label of voxels that a rater left out; a pair is compared where both know.
        volumes: expected voxels of the foreground classes; without, no CRPS.

    Example:
        >>> raters = torch.tensor([[0, 1, 1, 0], [0, 1, 0, 0]])
        >>> found = agreement(torch.tensor([0, 1, 1, 0]), raters, 2, volumes=[1.5])
        >>> [round(values[0], 4) for values in found.values()]
        [0.8333, 0.6667, 0.1667]
    """
    predicted = predicted.to(raters.device)[None].to(torch.int64)
    table = dice_table(torch.cat([predicted, raters.to(torch.int64)]), num_classes, ignore_index)
    others = ~torch.eye(len(raters), dtype=torch.bool)
    found = {
        "dice_raters": [mean_without_nan(of_class[0, 1:].tolist()) for of_class in table],
        "dice_between_raters": [mean_without_nan(of_class[1:, 1:][others].tolist()) for of_class in table],
    }
    if volumes is not None:
        counted = [[float((rater == k).sum()) for rater in raters] for k in range(1, num_classes)]
        found["volume_crps"] = [
            volume_crps(volume, of_raters) / (mean_without_nan(of_raters) or math.nan)
            for volume, of_raters in zip(volumes, counted, strict=True)
        ]
    return found


def dice_table(labels: Tensor, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """Dice coefficients between all pairs of labels, ``(K - 1, M, M)`` float64 on the CPU.

    ``[k, a, b]`` is ``2 |A n B| / (|A| + |B|)`` of the k-th foreground class over the voxels that both know; NaN where
    ``b``, taken as the truth, does not hold the class, as elsewhere.

    Args:
        labels: class numbers ``(M, *spatial)``.
        num_classes: background included.
        ignore_index: label of voxels that count nowhere.

    Example:
        >>> dice_table(torch.tensor([[0, 1, 1], [0, 0, 1], [0, 0, 0]]), 2)[0]
        tensor([[1.0000, 0.6667,    nan],
                [0.6667, 1.0000,    nan],
                [0.0000, 0.0000,    nan]], dtype=torch.float64)
    """
    count = len(labels)
    both = torch.zeros(num_classes - 1, count, count, dtype=torch.float64)
    size = torch.zeros_like(both)
    for part in labels.flatten(1).split(_SLAB, 1):
        seen = check_label(part, num_classes, ignore_index)
        known = torch.ones_like(seen.index, dtype=torch.bool) if seen.valid is None else seen.valid
        for k in range(1, num_classes):
            holds = ((seen.index == k) & known).float()
            both[k - 1] += (holds @ holds.T).cpu()
            size[k - 1] += (holds @ known.float().T).cpu()
    sizes = size.transpose(1, 2)  # of b where a knows
    return (2 * both / (size + sizes)).masked_fill(sizes == 0, torch.nan)


def volume_crps(volume: float, raters: Sequence[float]) -> float:
    """Continuous ranked probability score of one volume against the distribution of the raters' volumes.

    ``integral (F(v) - [v >= volume])^2 dv`` with the raters' empirical distribution ``F``, which is
    ``mean_r |v_r - volume| - mean_{r,s} |v_r - v_s| / 2``, in the unit of the volumes. CURVAS puts a normal
    distribution through the raters' mean and standard deviation in the place of ``F``; this one assumes none.

    Source: Gneiting and Raftery, JASA 102, 2007; Riera-Marin et al., CURVAS, arXiv 2505.08685, for its use.

    Example:
        >>> volume_crps(10.0, [8.0, 12.0]), volume_crps(10.0, [8.0])
        (1.0, 2.0)
    """
    count = len(raters)
    if not count:
        return math.nan
    apart = math.fsum(abs(a - b) for a in raters for b in raters) / count**2
    return math.fsum(abs(rater - volume) for rater in raters) / count - apart / 2


def volume_crps_normal(volume: float, raters: Sequence[float]) -> float:
    """CRPS of one volume against a normal distribution with the raters' mean and standard deviation, as CURVAS has it.

    ``s (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi))`` with ``z = (volume - m) / s``, the integral over all volumes;
    the challenge's own script integrates over ``m +- 3 s`` alone, so that beyond them it no longer grows. Of raters
    who agree it is ``|volume - m|``.

    Source: Gneiting and Raftery, JASA 102, 2007, equation 21; Riera-Marin et al., CURVAS, arXiv 2505.08685.

    Example:
        >>> round(volume_crps_normal(10.0, [8.0, 12.0]), 4), volume_crps_normal(10.0, [8.0])
        (0.4674, 2.0)
    """
    if not raters:
        return math.nan
    mean = math.fsum(raters) / len(raters)
    spread = math.sqrt(math.fsum((rater - mean) ** 2 for rater in raters) / len(raters))
    if spread == 0:
        return abs(volume - mean)
    z = (volume - mean) / spread
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return spread * (z * math.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))


def thresholded_dice(
    probability: Tensor, shares: Tensor, thresholds: Sequence[float] = (0.1, 0.24, 0.38, 0.52, 0.66, 0.8)
) -> list[float]:
    """Dice of each foreground class with prediction and raters' mean cut at the same thresholds, mean over these.

    ``mean_t Dice([p > t], [m > t])``; 1 where at a threshold neither holds a voxel. All voxels are used.

    Args:
        probability: ``(K, *spatial)``.
        shares: the raters' mean label ``(K, *spatial)``, see :func:`monai_calib.labels.mean_label`.
        thresholds: the challenge's six by default.

    Source: CURVAS-PDACVI challenge 2025, thresh-DSC; https://curvas-pdacvi.grand-challenge.org/metrics-evaluation

    Example:
        >>> p, m = torch.tensor([0.9, 0.3]), torch.tensor([1.0, 0.0])
        >>> thresholded_dice(torch.stack([1 - p, p]), torch.stack([1 - m, m]), [0.2, 0.5])  # 2 / 3 and 1
        [0.8333...]
    """
    if probability.shape != shares.shape:
        raise ValueError(f"shares: expected the shape {tuple(probability.shape)}, got {tuple(shares.shape)}")
    scores = []
    for p, m in zip(probability[1:], shares[1:], strict=True):
        of_thresholds = []
        for t in thresholds:
            found, true = p > t, m > t
            size = int(found.sum()) + int(true.sum())
            of_thresholds.append(2 * int((found & true).sum()) / size if size else 1.0)
        scores.append(mean_without_nan(of_thresholds))
    return scores


def _mean_of_rows(rows: Sequence[Sequence[float]]) -> list[float]:
    return [mean_without_nan(column) for column in zip(*rows, strict=True)]
