"""Newton's method for a convex mean over streamed data: one pass gives value, gradient, Hessian and a line search."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["StreamingNewton"]

_STEPS = (1.0, 0.3, 0.1, 0.03, 0.01)
_SMALLEST_DECREASE = 1e-11


class StreamingNewton:
    """Minimises ``mean_n f_n(theta) + penalty`` within bounds, where sums over ``n`` arrive pass by pass.

    The penalty is ``1/2 sum_i strength_i (theta_i - start_i)^2``. Each pass evaluates ``f`` at the full Newton step and
    at four shorter ones, and gradient and Hessian at the full one: near the optimum every pass is a Newton step. Steps
    are damped (Levenberg) where none of them helps. Parameters at a bound that push outwards stay there.

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
        ...     values = [(theta - 3).square().sum() for theta in fit.trials]
        ...     fit.add(values, 2 * (fit.trials[0] - 3), 2 * torch.eye(1), count=1)
        ...     done = fit.end_pass()
        >>> fit.theta.tolist()
        [3.0]
    """

    def __init__(self, start: Tensor, low: Tensor, high: Tensor, strength: Tensor, tolerance: float = 1e-4) -> None:
        self.start, self.low, self.high = start.double(), low.double(), high.double()
        self.strength = strength.double()
        self.tolerance = tolerance
        self.theta = self.start.clone()
        self.trials = [self.start]
        self.status = "pass limit"
        self._value = float("inf")
        self._gradient, self._hessian = torch.zeros(0), torch.zeros(0)
        self._damping = 0.0
        self._clear()

    def _clear(self) -> None:
        size = len(self.start)
        self._values = torch.zeros(len(self.trials), dtype=torch.float64)
        self._sum_gradient = torch.zeros(size, dtype=torch.float64)
        self._sum_hessian = torch.zeros(size, size, dtype=torch.float64)
        self._count = 0

    def add(self, values: list[Tensor], gradient: Tensor, hessian: Tensor, count: int) -> None:
        """Add sums over ``count`` voxels: ``f`` at each of :attr:`trials`, gradient and Hessian at the first."""
        self._values += torch.stack([value.double().cpu() for value in values])
        self._sum_gradient += gradient.double().cpu()
        self._sum_hessian += hessian.double().cpu()
        self._count += count

    def end_pass(self) -> bool:
        """Choose among the trials; true when :attr:`theta` is the optimum."""
        offsets = torch.stack(self.trials) - self.start
        values = (self._values / self._count + 0.5 * (offsets.square() * self.strength).sum(1)).tolist()
        best = min(range(len(values)), key=values.__getitem__)
        improved = values[best] < self._value
        # The full step need not be the best of them: it has the derivatives, which save a pass.
        first_will_do = values[0] < self._value and self._value - values[0] >= 0.5 * (self._value - values[best])
        if first_will_do or (improved and best == 0):
            self.theta, self._value = self.trials[0], values[0]
            self._gradient = self._sum_gradient / self._count + self.strength * offsets[0]
            self._hessian = self._sum_hessian / self._count + torch.diag(self.strength)
            self._damping = self._damping / 10 if self._damping > 1e-9 else 0.0
        elif improved:
            # Shorter steps carry no derivatives: take them there next.
            self.theta, self.trials = self.trials[best], [self.trials[best]]
            self._value = values[best] + 1e-9 * (1 + abs(values[best]))
            self._clear()
            return False
        else:
            self._damping = max(self._damping * 100, 1e-6)
        step, decrease = self._newton_step()
        if float(step.abs().max()) < self.tolerance or decrease < _SMALLEST_DECREASE:
            self.theta = (self.theta + step).clamp(self.low, self.high)
            bounded = (self.theta <= self.low) | (self.theta >= self.high)
            self.status = "at bound" if bool(bounded.any()) else "converged"
            return True
        self.trials = [(self.theta + length * step).clamp(self.low, self.high) for length in _STEPS]
        self._clear()
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
