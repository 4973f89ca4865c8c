"""The sums a calibration histogram is made of, and the plain PyTorch code that fills them, slab by slab."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from monai_calib.labels import check_label, wrong_shares
from monai_calib.metrics.bins import fine_index
from monai_calib.metrics.inputs import Activation, Flat

__all__ = ["FIXED_POINT", "PROBLEMS", "SMALLEST_PROBABILITY", "Sums", "add_flat", "sum_tolerance"]

FIXED_POINT = 2.0**30
"""Confidences are summed as whole multiples of 2^-30 (cut, not rounded): integers add up to the same whatever the
order, the number of threads, or the device. The error is below 1e-9 a voxel, and none at all from 2^-7 upwards."""

SMALLEST_PROBABILITY = torch.finfo(torch.float32).tiny
"""Floor under the probability of the true class in the NLL, where probabilities are given and one is 0."""

PROBLEMS = ("non-finite", "no probability", "bad label", "suspicious", "zero likelihood")
"""What can be wrong with a voxel (or, ``suspicious``, with a whole update), in the order of :attr:`Sums.problems`."""

_SLAB_ELEMENTS = {"cpu": 2**18}  # classes times voxels; each takes some 60 bytes of intermediate tensors
_SLAB_ELEMENTS_ELSEWHERE = 2**23
_COPIES = {"cpu": 1}
_COPIES_ELSEWHERE = 256
"""Bins are filled in copies in which voxels take turns: nearly all background voxels meet in the same bin, where a
GPU's additions wait for one another."""


@dataclass
class Sums:
    """Rows are classes, and last, with softmax, the top label. Everything adds.

    Attributes:
        count: int64 ``(rows, bins)``, voxels whose probability falls in the bin.
        hits: int64 ``(rows, bins)``, those of them that bear the class (top label: that are classified correctly).
        soft_hits: int64 ``(rows, bins)``, in units of 2^-30: what voxels with a soft label add to ``hits``.
        confidence: float64 ``(rows, bins)``, sum of their probabilities.
        scores: float64 ``(2,)``, sums of the negative log-likelihood and of the Brier score.
        problems: int64 ``(len(PROBLEMS),)``.
    """

    count: torch.Tensor
    hits: torch.Tensor
    soft_hits: torch.Tensor
    confidence: torch.Tensor
    scores: torch.Tensor
    problems: torch.Tensor

    @classmethod
    def zeros(cls, rows: int, bins: int, device: torch.device | str = "cpu") -> Sums:
        return cls(
            count=torch.zeros(rows, bins, dtype=torch.int64, device=device),
            hits=torch.zeros(rows, bins, dtype=torch.int64, device=device),
            soft_hits=torch.zeros(rows, bins, dtype=torch.int64, device=device),
            confidence=torch.zeros(rows, bins, dtype=torch.float64, device=device),
            scores=torch.zeros(2, dtype=torch.float64, device=device),
            problems=torch.zeros(len(PROBLEMS), dtype=torch.int64, device=device),
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to(self, device: torch.device | str) -> Sums:
        return Sums(**{name: value.to(device) for name, value in self.tensors().items()})

    def add_(self, other: Sums) -> None:
        for name, value in self.tensors().items():
            value += getattr(other, name).to(value.device)


def sum_tolerance(dtype: torch.dtype) -> float:
    """Largest error of a voxel's sum of probabilities: a rounding error of the dtype, with room for resampling."""
    return 1e-3 if dtype in (torch.float32, torch.float64) else 1e-2


def add_flat(
    sums: Sums,
    flat: Flat,
    num_bins: int,
    activation: Activation,
    from_logits: bool,
    ignore_index: int | None,
) -> None:
    """Add a batch to ``sums`` in slabs, on the tensors' device and without waiting for it."""
    batch, classes, voxels = flat.prediction.shape
    elements = _SLAB_ELEMENTS.get(flat.prediction.device.type, _SLAB_ELEMENTS_ELSEWHERE)
    step = max(1, elements // classes)
    tolerance = sum_tolerance(flat.prediction.dtype)
    for b in range(batch):
        for start in range(0, voxels, step):
            part = slice(start, min(start + step, voxels))
            x = flat.prediction[b, :, part].float()
            label = flat.label[b, ..., part]
            keep = torch.ones_like(x[0], dtype=torch.bool) if flat.mask is None else flat.mask[b, part] != 0
            if activation == "softmax":
                _add_softmax(sums, x, label, keep, num_bins, from_logits, ignore_index, tolerance)
            else:
                _add_sigmoid(sums, x, label, keep, num_bins, from_logits, ignore_index)


def class_numbers(
    label: torch.Tensor, classes: int, ignore_index: int | None
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Class numbers ``(n,)`` of numbers or of one-hot ``(K, n)``; where they are wrong, and where ignored, if anywhere.

    Numbers are those of :func:`monai_calib.labels.check_label`, 0 where wrong or ignored. On the CPU values are looked
    at first, which is quicker; nothing is raised.
    """
    if label.ndim == 2:
        one_hot = ((label == 0) | (label == 1)).all(0) & (label.sum(0, dtype=torch.float32) == 1)
        number = (label.to(torch.uint8) if label.dtype == torch.bool else label).argmax(0)
        ignored = None if ignore_index is None else (number == ignore_index) & one_hot
        if ignore_index is not None and ignored is not None:
            ignored = ignored | (label == ignore_index).all(0)
            one_hot = one_hot | ignored
        return number, ~one_hot, ignored
    if label.device.type == "cpu":
        try:
            seen = check_label(label, classes, ignore_index, look=True)
            return seen.index, None, None if seen.valid is None else ~seen.valid
        except ValueError:
            pass
    seen = check_label(label, classes, ignore_index, look=False)
    if seen.valid is None or seen.wrong is None:
        return seen.index, seen.wrong, None
    return seen.index, seen.wrong, ~(seen.valid | seen.wrong)


def _add_softmax(
    sums: Sums,
    x: torch.Tensor,
    label: torch.Tensor,
    keep: torch.Tensor,
    num_bins: int,
    from_logits: bool,
    ignore_index: int | None,
    tolerance: float,
) -> None:
    classes = len(x)
    if label.ndim == 2 and label.is_floating_point():
        return _add_soft(sums, x, label, keep, num_bins, from_logits, ignore_index, tolerance)
    number, wrong, ignored = class_numbers(label, classes, ignore_index)
    number = number.long()
    bad_label = torch.zeros_like(keep) if wrong is None else wrong
    if ignored is not None:
        keep = keep & ~ignored
    finite = torch.isfinite(x).all(0)
    p = x.softmax(0) if from_logits else x
    proper = ((p >= -1e-6) & (p <= 1 + tolerance)).all(0) & ((p.sum(0) - 1).abs() <= tolerance)
    use = keep & finite & proper & ~bad_label
    number = torch.where(use, number, 0)[None]
    p = torch.where(use, p, 0).clamp(0, 1)

    top, winner = p.max(0, keepdim=True)
    hit = (winner == number) & use
    _add_bins(sums, torch.cat([p, top]), use, num_bins)
    true = p.gather(0, number)
    rows = torch.cat([number, torch.full_like(number, classes)])
    index = rows * sums.hits.shape[1] + fine_index(torch.cat([true, top]), num_bins)
    sums.hits += _counted(index, torch.cat([use[None], hit]).long(), sums.hits)

    if from_logits:
        nll = -x.log_softmax(0).gather(0, number)
    else:
        nll = -true.clamp_min(SMALLEST_PROBABILITY).log()
    others = torch.where(torch.arange(classes, device=x.device)[:, None] == number, 0, p)
    brier = others.square().sum(0, keepdim=True) + (1 - true).square()
    zero = (true < SMALLEST_PROBABILITY) & (not from_logits)
    _add_rest(sums, nll, brier, use, keep, finite, proper, bad_label, zero)


def _add_soft(
    sums: Sums,
    x: torch.Tensor,
    label: torch.Tensor,
    keep: torch.Tensor,
    num_bins: int,
    from_logits: bool,
    ignore_index: int | None,
    tolerance: float,
) -> None:
    """Shares ``label (K, n)``: everything counts as its expectation over labels drawn from them."""
    if ignore_index is not None:
        keep = keep & ~(label == ignore_index).all(0)
        if 0 <= ignore_index < len(label):
            keep = keep & (label[ignore_index] != 1)
    y = label.double()
    bad_label = wrong_shares(y, axis=0)
    finite = torch.isfinite(x).all(0)
    p = x.softmax(0) if from_logits else x
    proper = ((p >= -1e-6) & (p <= 1 + tolerance)).all(0) & ((p.sum(0) - 1).abs() <= tolerance)
    use = keep & finite & proper & ~bad_label
    p, y = torch.where(use, p, 0).clamp(0, 1), torch.where(use, y, 0).clamp(max=1)
    top, winner = p.max(0, keepdim=True)
    index = _add_bins(sums, torch.cat([p, top]), use, num_bins)
    _add_soft_hits(sums, index, torch.cat([y, y.gather(0, winner)]))
    if from_logits:
        cost = -torch.where(use, x, 0).log_softmax(0).double()
    else:
        cost = -p.clamp_min(SMALLEST_PROBABILITY).log().double()
    nll = (y * cost).sum(0, keepdim=True)
    brier = (y * (1 - 2 * p.double())).sum(0, keepdim=True) + p.double().square().sum(0, keepdim=True)
    zero = ((p < SMALLEST_PROBABILITY) & (y > 0)).any(0, keepdim=True) & (not from_logits)
    _add_rest(sums, nll, brier, use, keep, finite, proper, bad_label, zero)


def _add_soft_hits(sums: Sums, index: torch.Tensor, y: torch.Tensor) -> None:
    """Whole hits where a share is 1, as of a hard label, and units of 2^-30 elsewhere."""
    sums.hits += _counted(index, (y == 1).long(), sums.hits)
    sums.soft_hits += _counted(index, (torch.where(y == 1, 0, y) * FIXED_POINT).long(), sums.hits)


def _add_sigmoid(
    sums: Sums,
    x: torch.Tensor,
    label: torch.Tensor,
    keep: torch.Tensor,
    num_bins: int,
    from_logits: bool,
    ignore_index: int | None,
) -> None:
    if ignore_index is not None:
        keep = keep & (label != ignore_index).all(0)
    bad_label = ~((label >= 0) & (label <= 1)).all(0)  # also for NaN
    finite = torch.isfinite(x).all(0)
    p = x.sigmoid() if from_logits else x
    proper = ((p >= -1e-6) & (p <= 1 + 1e-3)).all(0)
    use = keep & finite & proper & ~bad_label
    p = torch.where(use, p, 0).clamp(0, 1)
    y = torch.where(use, label, 0).double()

    index = _add_bins(sums, p, use, num_bins)
    _add_soft_hits(sums, index, y)

    if from_logits:
        softplus = torch.nn.functional.softplus
        nll = y * softplus(-x).double() + (1 - y) * softplus(x).double()
        zero = torch.zeros_like(use)[None]
    else:
        p_is, p_not = (value.clamp_min(SMALLEST_PROBABILITY).log().double() for value in (p, 1 - p))
        nll = -(y * p_is + (1 - y) * p_not)
        zero = ((p < SMALLEST_PROBABILITY) & (y > 0)) | ((1 - p < SMALLEST_PROBABILITY) & (y < 1))
    brier = y * (1 - p).double().square() + (1 - y) * p.double().square()
    _add_rest(sums, nll, brier, use, keep, finite, proper, bad_label, zero)


def _add_bins(sums: Sums, p: torch.Tensor, use: torch.Tensor, num_bins: int) -> torch.Tensor:
    """Count the rows ``p (rows, n)``; return the flat index of each of their bins."""
    rows, bins = sums.count.shape
    index = fine_index(p, num_bins) + bins * torch.arange(rows, device=p.device)[:, None]
    sums.count += _counted(index, use.long().expand(rows, -1), sums.count)
    fixed = _counted(index, (p * FIXED_POINT).long(), sums.count)  # p is 0 where it is not used
    sums.confidence += fixed.double() / FIXED_POINT
    return index


def _counted(index: torch.Tensor, value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """int64 sums of ``value (rows, n)`` by bin, in the shape of ``like``; ``index`` numbers all bins of all rows."""
    copies = _COPIES.get(index.device.type, _COPIES_ELSEWHERE)
    turn = torch.arange(index.shape[1], device=index.device) % copies
    sums = torch.zeros(copies * like.numel(), dtype=torch.int64, device=index.device)
    sums.scatter_add_(0, (index + like.numel() * turn).view(-1), value.reshape(-1))
    return sums.view(copies, *like.shape).sum(0)


def _add_rest(
    sums: Sums,
    nll: torch.Tensor,
    brier: torch.Tensor,
    use: torch.Tensor,
    keep: torch.Tensor,
    finite: torch.Tensor,
    proper: torch.Tensor,
    bad_label: torch.Tensor,
    zero: torch.Tensor,
) -> None:
    sums.scores += torch.stack([torch.where(use, score, 0).double().sum() for score in (nll, brier)])
    none = torch.zeros((), dtype=torch.int64, device=use.device)
    zero_likelihood = (zero.any(0) & use).sum()
    sums.problems += torch.stack(
        [(keep & ~finite).sum(), (keep & finite & ~proper).sum(), (keep & bad_label).sum(), none, zero_likelihood]
    )
