"""Conformal risk control: a threshold for each structure that keeps the expected false-negative rate below a limit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from .conformal import Conformal
from .truth import Truth, check_probability

__all__ = ["ConformalThreshold", "FalseNegativeControl", "conformal_threshold"]

GRID = 1000


class _Case(Protocol):
    name: str
    logits: Tensor
    label: Tensor


class ConformalThreshold(NamedTuple):
    """``threshold`` on a structure's probability: voxels at or above it are kept. ``risk`` is its mean false-negative
    rate over the ``cases`` of the fit, and ``possible`` says whether there were enough of them for the limit."""

    threshold: float
    risk: float
    cases: int
    possible: bool


def conformal_threshold(losses: Tensor, limit: float) -> ConformalThreshold:
    """The largest threshold whose corrected mean loss is within the limit.

    With ``n`` cases and their mean false-negative rate ``R(t)``, which never falls as ``t`` rises, the answer is
    ``max{t : n / (n + 1) R(t) + 1 / (n + 1) <= limit}``. If cases are exchangeable, the expected rate of the next
    case is then at most ``limit``, whatever the network. With ``n < 1 / limit - 1`` no threshold is; 0, which keeps
    every voxel and misses nothing, is what is returned.

    Args:
        losses: false-negative rate ``(n, G + 1)`` of each case at thresholds ``0, 1/G ... 1``, not falling along a row.
        limit: largest expected false-negative rate, between 0 and 1.

    Source: Angelopoulos, Bates, Fisch, Lei and Schuster, ICLR 2024; https://arxiv.org/abs/2208.02814

    Example:
        >>> losses = torch.tensor([[0.0, 0.0, 0.2], [0.0, 0.1, 0.5]])  # at thresholds 0, 1/2, 1
        >>> conformal_threshold(losses, 0.4)  # (0 + 0.1 + 1) / 3 is within the limit, (0.2 + 0.5 + 1) / 3 is not
        ConformalThreshold(threshold=0.5, risk=0.05..., cases=2, possible=True)
    """
    if not 0 < limit < 1:
        raise ValueError(f"limit: expected a false-negative rate between 0 and 1, got {limit}")
    n = len(losses)
    if not n:
        return ConformalThreshold(0.0, math.nan, 0, False)
    corrected = (losses.double().sum(0) + 1) / (n + 1)
    # A rate that is equal to the limit but for rounding is within it.
    within = (corrected <= limit + 1e-12).nonzero().flatten()
    index = int(within[-1]) if len(within) else 0
    risk = float(losses[:, index].double().mean())
    return ConformalThreshold(index / (losses.shape[1] - 1), risk, n, len(within) > 0)


class FalseNegativeControl(Conformal[Tensor]):
    """Segmentations of each structure that miss, on average over cases, no more than a chosen share of it.

    For each structure ``k`` the voxels with ``p_k >= t_k`` are kept, ``t_k`` by :func:`conformal_threshold` from
    validation cases. The false-negative rate of a case is the share of its voxels of ``k`` that are not kept; cases
    without ``k`` do not count, so the guarantee speaks of cases that have it. It holds on average over cases and over
    validation sets, not for each case, and only for cases drawn like those of validation (same scanners, same
    population). Structures may overlap.

    What must be exchangeable are subjects: two volumes of one person are alike and count as one, with the mean of their
    rates, if :meth:`update` is told whose they are.

    Args:
        num_classes: channels, background included; the background gets no threshold.
        limit: largest expected false-negative rate, one number or one for each structure.
        class_names, ignore_index: as in :class:`~.conformal.Conformal`.

    Example:
        >>> control = FalseNegativeControl(2, limit=0.2)
        >>> p = torch.linspace(0, 1, 11)
        >>> for case in range(9):
        ...     control.update(torch.stack([1 - p, p]), torch.ones(11))
        >>> control.fit()  # 9 cases: the rate may be (10 * 0.2 - 1) / 9 = 0.11, one voxel of 11
        >>> control.thresholds[0].threshold
        0.1
        >>> control.keep(torch.tensor([[0.95, 0.5], [0.05, 0.5]])).tolist()
        [[False, True]]
    """

    format = "monai_calib/conformal/1"
    exclusive = False

    def __init__(
        self,
        num_classes: int,
        limit: float | Sequence[float] = 0.1,
        class_names: Sequence[str] | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(num_classes, class_names, ignore_index)
        self.limits = [float(limit)] * (num_classes - 1) if isinstance(limit, (int, float)) else list(map(float, limit))
        if len(self.limits) != num_classes - 1 or not all(0 < value < 1 for value in self.limits):
            raise ValueError(
                f"limit: expected one false-negative rate between 0 and 1, or {num_classes - 1}, got {limit}"
            )
        self.thresholds: list[ConformalThreshold] = []

    def _scores_of(self, truth: Truth, spacing: Sequence[float] | None) -> Mapping[int, Tensor]:
        """The false-negative rate at each threshold of the grid, of the structures that are there."""
        rates = {}
        for k in range(1, self.num_classes):
            true = truth.probability[k][truth.label == k]
            if true.numel():
                # A voxel is kept at threshold g / G while g <= p G: it is missed at all later ones.
                last_kept = (true.double() * GRID + 1e-9).floor().long().clamp(0, GRID)
                missed_from = torch.bincount(last_kept + 1, minlength=GRID + 2)[: GRID + 1]
                rates[k] = (missed_from.cumsum(0) / true.numel()).cpu()
        return rates

    def fit(self, cases: Iterable[_Case] = ()) -> None:
        """Find the thresholds from the cases of :meth:`update`, after adding ``cases`` (their softmax), if any.

        Args:
            cases: such as :class:`~monai_calib.posthoc.LogitCase`: name, logits ``(K, *spatial)``, label.

        Warns where there are too few cases for a limit: the threshold is then 0, which keeps every voxel.
        """
        for case in cases:
            self.update(case.logits.float().softmax(0), case.label, case=f"case {case.name}")
        self.thresholds = []
        for k, limit in enumerate(self.limits, 1):
            rates = [torch.stack(of_subject).mean(0) for of_subject in self._scores[k].values()]
            stacked = torch.stack(rates) if rates else torch.zeros(0, GRID + 1)
            self.thresholds.append(conformal_threshold(stacked, limit))
            if not self.thresholds[-1].possible:
                promised, needed = f"a false-negative rate of {limit:g}", math.ceil(1 / limit - 1 - 1e-9)
                self._warn(k, len(rates), promised, needed, "every voxel is kept")

    def keep(self, probability: Tensor) -> Tensor:
        """Voxels kept of each structure, bool ``(K - 1, *spatial)``, background left out."""
        if not self.thresholds:
            raise RuntimeError("no thresholds yet: call fit() after update()")
        probability = check_probability(probability, self.num_classes, exclusive=False)
        rows = (
            probability[k].double() * GRID + 1e-9 >= round(t.threshold * GRID) for k, t in enumerate(self.thresholds, 1)
        )
        return torch.stack(list(rows))

    def apply(self, probability: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """Voxels kept of each structure, as :meth:`keep` gives them."""
        return self.keep(probability)

    def _settings(self) -> dict[str, Any]:
        return {"limit": self.limits}

    def to_json(self) -> dict[str, Any]:
        """Limits and thresholds as plain values."""
        return {
            "format": self.format,
            "num_classes": self.num_classes,
            "class_names": self.class_names,
            "limits": self.limits,
            "thresholds": [{**t._asdict(), "risk": None if math.isnan(t.risk) else t.risk} for t in self.thresholds],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FalseNegativeControl:
        """Read what :meth:`to_json` wrote. Raises ``ValueError`` for another format."""
        if data.get("format") != cls.format:
            raise ValueError(f"format: expected {cls.format!r}, got {data.get('format')!r}")
        made = cls(data["num_classes"], data["limits"], data["class_names"])
        made.thresholds = [
            ConformalThreshold(**{**t, "risk": math.nan if t["risk"] is None else t["risk"]})
            for t in data["thresholds"]
        ]
        return made
