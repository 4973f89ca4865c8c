"""Intervals of fitted parameters: how far they would move with other subjects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from monai_calib.metrics.bootstrap import resamples
from monai_calib.posthoc.base import Calibrator
from monai_calib.posthoc.stream import LogitCase

__all__ = ["ParameterInterval", "parameter_intervals"]


class ParameterInterval(NamedTuple):
    """A fitted number with the bounds of its 95 % interval."""

    name: str
    value: float
    low: float
    high: float


def parameter_intervals(
    calibrator: Calibrator, cases: Iterable[LogitCase], level: float = 0.95, samples: int = 1000, seed: int = 0
) -> list[ParameterInterval]:
    """Percentile bootstrap intervals of a fitted correction's parameters, resampling subjects.

    A refit for every resample would take hours. At the optimum of the sum of convex likelihoods one Newton step from it
    leads to that of the resample up to second order: ``theta - (sum w_s H_s)^-1 sum w_s g_s``, with ``g_s``, ``H_s``
    gradient and Hessian of subject s, the fit's penalty among them, and ``w_s`` how often it was drawn. These take one
    pass.

    Args:
        calibrator: fitted on these cases.
        cases: as in the fit.
        level: coverage.
        samples: resamples drawn.
        seed: of the drawing.

    Returns: one interval per parameter that the fit did not leave at a bound; nothing for a correction that is not the
        optimum of a smooth likelihood (isotonic regression, no correction) or with fewer than two subjects.

    Source: of the idea, Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 2.7.4.

    Example:
        >>> from monai_calib.posthoc import TemperatureScaling, fit
        >>> logits = torch.tensor([[2.0] * 4, [0.0] * 4])
        >>> cases = [LogitCase(str(n), logits, torch.tensor([0, 0, n % 2, 1])) for n in range(6)]
        >>> scaling = TemperatureScaling(2, region="all")
        >>> fit([scaling], cases)
        >>> (found,) = parameter_intervals(scaling, cases)
        >>> found.name, found.low < found.value < found.high
        ('temperature', True)
    """
    gradients: dict[str, Tensor] = {}
    hessians: dict[str, Tensor] = {}
    for case in cases:
        found = calibrator.derivatives(case)
        if found is None:
            return []
        gradients[case.subject] = gradients.get(case.subject, 0) + found.gradient
        hessians[case.subject] = hessians.get(case.subject, 0) + found.hessian
    optimum = calibrator.optimum()
    if optimum is None or len(gradients) < 2:
        return []
    g, h = torch.stack(list(gradients.values())), torch.stack(list(hessians.values()))
    free = h.sum(0).diagonal() > 1e-9 * h.sum(0).diagonal().max().clamp_min(1e-300)
    ridge = 1e-6 * h.sum(0).diagonal()[free].mean() * torch.eye(int(free.sum()), dtype=torch.float64)
    weights = torch.from_numpy(resamples(len(g), samples, seed))
    total_g = weights @ g[:, free]
    total_h = torch.einsum("bs,sij->bij", weights, h[:, free][:, :, free]) + ridge
    steps = torch.linalg.solve(total_h, total_g.unsqueeze(2)).squeeze(2)
    drawn = optimum.expand(samples, -1).clone()
    drawn[:, free] -= steps
    named = calibrator.numbers(optimum)
    columns = [calibrator.numbers(theta) for theta in drawn]
    tail = (1 - level) / 2
    bounds = {name: np.quantile([column[name] for column in columns], [tail, 1 - tail]) for name in named}
    intervals = (ParameterInterval(name, value, *map(float, bounds[name])) for name, value in named.items())
    return [interval for interval in intervals if interval.low < interval.high]
