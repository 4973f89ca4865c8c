"""Newton's method for a convex mean over streamed data: one pass gives value, gradient and Hessian."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Derivatives", "StreamingNewton", "add_softmax", "number_of", "weighted_sum"]

_SHORTEST = 0.02
_PART = 2**22
"""Numbers of a temporary: parameters times voxels."""
_SMALLEST_DECREASE = 1e-11


class Derivatives:
    """Sums over voxels at fixed parameters: ``f``, gradient ``(P,)`` and Hessian ``(P, P)``, on the CPU in float64."""

    def __init__(self, theta: Tensor) -> None:
        self.trial = theta
        self.value, self.count = 0.0, 0
        self.gradient: Tensor = torch.zeros(len(theta), dtype=torch.float64)
        self.hessian: Tensor = torch.zeros(len(theta), len(theta), dtype=torch.float64)

    def add(self, value: Tensor, gradient: Tensor, hessian: Tensor, count: int) -> None:
        """Add sums over ``count`` voxels."""
        self.value += float(value)
        self.count += count
        self.gradient += gradient.double().cpu()
        self.hessian += hessian.double().cpu()

    def penalise(self, fit: StreamingNewton) -> None:
        """Add the penalty of a fit, and hold the parameters that it left at a bound: their rows become 0."""
        self.gradient += self.count * fit.strength * (self.trial - fit.start)
        self.hessian += self.count * torch.diag(fit.strength)
        held = (self.trial <= fit.low) | (self.trial >= fit.high)
        self.gradient[held] = 0.0
        self.hessian[held] = self.hessian[:, held] = 0.0


class StreamingNewton:
    """Minimises ``mean_n f_n(theta) + penalty`` within bounds, where sums over ``n`` arrive pass by pass.

    The penalty is ``1/2 sum_i strength_i (theta_i - start_i)^2``. A pass evaluates ``f`` and its derivatives at one
    point, the full Newton step; only if that does not help, the next passes try a quarter of it and a quarter of that,
    and then a damped one (Levenberg). Parameters at a bound that push outwards stay there.

    SciPy's optimisers would ask for one fit's voxels at moments of their own; here several fits share a pass, and so
    one run of the network, or one reading of what was kept. ``benchmarks/fits.py`` compares the two.

    Args:
        start: ``(P,)`` float64.
        low, high: bounds ``(P,)``.
        strength: ``(P,)``; at least tiny, so that directions the data do not determine stay where they start.
        tolerance: the fit ends when the Newton step is smaller than this in every parameter; the error left is of
            the order of its square.

    Example:
        >>> fit = StreamingNewton(torch.zeros(1).double(), torch.tensor([-9.0]), torch.tensor([9.0]), torch.zeros(1))
        >>> done = False
        >>> while not done:  # minimise (theta - 3)^2
        ...     fit.add((fit.trial - 3).square().sum(), 2 * (fit.trial - 3), 2 * torch.eye(1), count=1)
        ...     done = fit.end_pass()
        >>> fit.theta.tolist()
        [3.0]
    """

    def __init__(self, start: Tensor, low: Tensor, high: Tensor, strength: Tensor, tolerance: float = 1e-4) -> None:
        self.start, self.low, self.high = start.double(), low.double(), high.double()
        self.strength = strength.double()
        self.tolerance = tolerance
        self.theta = self.start.clone()
        self.trial = self.start
        self.status = "pass limit"
        self._value = float("inf")
        self._gradient, self._hessian = torch.zeros(0), torch.zeros(0)
        self._length, self._damping = 1.0, 0.0
        self._sums = Derivatives(self.trial)

    def add(self, value: Tensor, gradient: Tensor, hessian: Tensor, count: int) -> None:
        """Add sums over ``count`` voxels: ``f``, its gradient and its Hessian at :attr:`trial`."""
        self._sums.add(value, gradient, hessian, count)

    def sums(self) -> dict[str, Tensor]:
        """The sums of this pass so far, as :meth:`add` takes them."""
        sums = self._sums
        value, count = (torch.tensor(number, dtype=torch.float64) for number in (sums.value, sums.count))
        return {"value": value, "gradient": sums.gradient, "hessian": sums.hessian, "count": count}

    def look_at(self, trial: Tensor) -> None:
        """Begin a pass at these parameters, whatever came before."""
        self.trial = trial.double()
        self._sums = Derivatives(self.trial)

    def end_pass(self) -> bool:
        """Take the trial, or look closer to :attr:`theta`; true when that is the optimum."""
        offset, sums = self.trial - self.start, self._sums
        value = sums.value / sums.count + 0.5 * float(offset.square() @ self.strength)
        if value < self._value:
            self.theta, self._value = self.trial, value
            self._gradient = sums.gradient / sums.count + self.strength * offset
            self._hessian = sums.hessian / sums.count + torch.diag(self.strength)
            self._length, self._damping = 1.0, self._damping / 10 if self._damping > 1e-9 else 0.0
        elif self._length > _SHORTEST:
            self._length /= 4
        else:
            self._length, self._damping = 1.0, max(self._damping * 100, 1e-6)
        step, decrease = self._newton_step()
        if float(step.abs().max()) < self.tolerance or decrease < _SMALLEST_DECREASE:
            self.theta = (self.theta + step).clamp(self.low, self.high)
            bounded = (self.theta <= self.low) | (self.theta >= self.high)
            self.status = "at bound" if bool(bounded.any()) else "converged"
            return True
        self.look_at(self.theta + self._length * step)
        return False

    def _newton_step(self) -> tuple[Tensor, float]:
        """The damped step from ``theta`` and the decrease of ``f`` it promises."""
        pushed_out = ((self.theta <= self.low) & (self._gradient > 0)) | (
            (self.theta >= self.high) & (self._gradient < 0)
        )
        free = ~pushed_out
        step = torch.zeros_like(self.theta)
        if bool(free.any()):
            hessian = self._hessian[free][:, free]
            scale = float(hessian.diagonal().mean())
            damped = hessian + (self._damping + 1e-14) * max(scale, 1e-300) * torch.eye(len(hessian)).double()
            step[free] = -torch.linalg.lstsq(damped, self._gradient[free, None], driver="gelsd").solution[:, 0]
        step = (self.theta + step).clamp(self.low, self.high) - self.theta
        return step, -0.5 * float(step @ self._gradient)


def add_softmax(
    sums: StreamingNewton | Derivatives,
    log_p: Tensor,
    label: Tensor,
    weight: Tensor | None,
    classes: Tensor,
    features: Callable[[slice], Tensor],
) -> None:
    """Add the likelihood of ``softmax(z)``, where parameter i multiplies feature ``u_i`` in the logit of class ``k_i``.

    With labels ``y`` the gradient is ``(p - y)_(k_i) u_i``, the Hessian ``p_(k_i) (1[k_i = k_j] - p_(k_j)) u_i u_j``:
    one product of matrices for ``p u``, and one more for the parameters of each class.

    Args:
        sums: gets the sums.
        log_p: ``(K, n)`` log-probabilities.
        label: ``(n,)``.
        weight: ``(n,)``, or none where every voxel counts once.
        classes: ``(P,)`` class ``k_i`` of each parameter.
        features: gives ``u`` ``(P, m)`` of some of the voxels.
    """
    step = max(1, _PART // max(1, len(classes)))
    for first in range(0, len(label), step):
        part = slice(first, first + step)
        truth, p, u = label[None, part], log_p[:, part].exp(), features(part)
        w = None if weight is None else weight[part]
        value = -weighted_sum(log_p[:, part].gather(0, truth)[0], w)
        error = p.scatter_add(0, truth, -torch.ones_like(p[:1]))
        spread = p[classes] * u
        counted = spread if w is None else spread * w
        gradient = weighted_sum(error[classes] * u, w)
        hessian = -counted @ spread.T
        for k in range(len(p)):
            own = (classes == k).nonzero()[:, 0]
            hessian[own[:, None], own] += counted[own] @ u[own].T
        sums.add(value, gradient, hessian, number_of(label[part], w))


def weighted_sum(values: Tensor, weight: Tensor | None) -> Tensor:
    """Sum over voxels, the last axis, each counting once or ``weight`` times."""
    return values.sum(-1) if weight is None else values @ weight


def number_of(label: Tensor, weight: Tensor | None) -> int:
    """Voxels that these stand for."""
    return len(label) if weight is None else int(weight.sum())
