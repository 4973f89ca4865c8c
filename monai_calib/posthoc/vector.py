"""Scaling with more than one number: a temperature a class, vector, matrix and Dirichlet scaling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from monai_calib.metrics.regions import Region
from monai_calib.posthoc.linear import LinearHead
from monai_calib.posthoc.newton import StreamingNewton, add_softmax
from monai_calib.posthoc.stream import LogitCase
from monai_calib.posthoc.temperature import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    SearchingCalibrator,
    note_search,
)

__all__ = ["ClasswiseTemperature", "DirichletScaling", "MatrixScaling", "VectorScaling"]

_LARGEST = 1 / LOWEST_TEMPERATURE
# Keeps the directions that softmax does not see (a common shift) where they start, and separable data finite.
_RIDGE = 1e-6


class _LinearScaling(SearchingCalibrator):
    """``softmax(W x + b)`` with the ``W`` and ``b`` of the largest likelihood, some of them held at 0.

    The first passes find the temperature ``T``; from ``W = I / T``, ``b = 0`` a streaming Newton fit goes on. The
    parameters of a class that no label bears would run off to minus infinity, so they stay at ``1 / T`` and 0.
    """

    def __init__(self, num_classes: int, region: str | Region | None = None) -> None:
        super().__init__(num_classes, region)
        self._base = torch.zeros(0)
        self._free = torch.zeros(0, dtype=torch.int64)

    def free_parameters(self) -> Tensor:
        """Which entries of ``[W b]`` are fitted, bool ``(K, K + 1)``."""
        raise NotImplementedError

    def strength(self) -> Tensor:
        """Strength of the pull to the start for each entry of ``[W b]``, ``(K, K + 1)``."""
        return torch.full((self.num_classes, self.num_classes + 1), _RIDGE)

    def lowest_weight(self) -> float:
        """The smallest value of an entry of ``W``."""
        return -_LARGEST

    def numbers(self, optimum: Tensor) -> dict[str, float]:
        full = self._full(optimum).reshape(self.num_classes, -1)
        free = self._free.tolist()
        return {
            (f"bias of class {i}" if j == self.num_classes else f"weight of class {i}")
            + ("" if j in (i, self.num_classes) else f" on logit {j}"): float(full[i, j])
            for i in range(self.num_classes)
            for j in range(self.num_classes + 1)
            if i * (self.num_classes + 1) + j in free
        }

    def in_words(self) -> str:
        state = self.head.state_dict()
        weight, bias = state["weight"], state["bias"]
        diagonal = weight.diagonal()
        if not torch.equal(weight, diagonal.diag()):
            return f"weights {'; '.join(map(_listed, weight))}; intercepts {_listed(bias)}"
        if bias.any() or not diagonal.all():
            return f"logits times {_listed(diagonal)}, plus {_listed(bias)}"
        return f"temperatures of the classes {_listed(1 / diagonal)}"

    def make_head(self) -> nn.Module:
        return LinearHead(torch.eye(self.num_classes), torch.zeros(self.num_classes))

    def observe(self, case: LogitCase) -> None:
        if self._newton is None:
            self.search(case)
            return
        for logits, label, weight in case.slabs(self.region):
            self._add_to_newton(self._newton, self.search_input(logits), label, weight)

    def end_pass(self) -> bool:
        if self._newton is None:
            if not self._search.end_pass():
                return False
            note_search(self, self._search)
            self._set(self._start(self._search.temperature))
            if self.record.status != "converged":
                return True
            self._newton = self.newton_from(self._search.temperature)
            return False
        done = self._newton.end_pass()
        self._set(self._full(self._newton.theta).reshape(self.num_classes, -1))
        if done:
            self.record.status = self._newton.status
            self._explain_status()
        return done

    def _start(self, temperature: float) -> Tensor:
        return torch.eye(self.num_classes, self.num_classes + 1) / temperature

    def newton_from(self, temperature: float) -> StreamingNewton:
        free = self.free_parameters()
        absent = list(self.record.absent_classes)
        free[absent] = False
        free[:, absent] = False
        self._base = self._start(temperature).double().flatten()
        self._free = free.flatten().nonzero().squeeze(1)
        bounds = torch.full(free.shape, _LARGEST)
        low = -bounds
        low[:, :-1] = self.lowest_weight()
        return StreamingNewton(
            self._base[self._free],
            low.flatten()[self._free],
            bounds.flatten()[self._free],
            self.strength().flatten()[self._free],
        )

    def _explain_status(self) -> None:
        if self.record.absent_classes:
            self.warn(
                self.record.status,
                f"no label of the region bears class {', '.join(map(str, self.record.absent_classes))}: its parameters "
                "stay at the common temperature. Calibrate on cases that hold every class",
            )
        elif self.record.status == "at bound":
            self.warn(
                "at bound",
                f"a parameter reached the end of its range of {_LARGEST:g}: the classes are nearly separable in these "
                "cases. Calibrate on more cases, or use temperature scaling",
            )

    def _full(self, theta: Tensor) -> Tensor:
        return self._base.index_copy(0, self._free, theta)

    def _set(self, parameters: Tensor) -> None:
        weight, bias = parameters[:, :-1], parameters[:, -1]
        self.head = type(self.make_head())(weight, bias)

    def _add_to_newton(self, newton: StreamingNewton, x: Tensor, label: Tensor, weight: Tensor | None) -> None:
        k = self.num_classes
        extended = torch.cat([x, torch.ones_like(x[:1])])
        log_p = (self._full(newton.trial).reshape(k, k + 1).to(x) @ extended).log_softmax(0)
        free = self._free.to(x.device)
        columns = free % (k + 1)
        add_softmax(newton, log_p, label, weight, free // (k + 1), lambda part: extended[columns, part])


class ClasswiseTemperature(_LinearScaling):
    """A temperature for each class: ``softmax(l_k / T_k)``, each between 0.05 and 20.

    Logits of different classes are stretched differently, so labels may change.

    Args: see :class:`~monai_calib.posthoc.base.Calibrator`.

    Example:
        >>> ClasswiseTemperature(3).foldable
        True
    """

    method = "classwise_temperature"
    foldable = True

    def free_parameters(self) -> Tensor:
        return torch.eye(self.num_classes, self.num_classes + 1, dtype=torch.bool)

    def lowest_weight(self) -> float:
        return 1 / HIGHEST_TEMPERATURE


class VectorScaling(_LinearScaling):
    """Vector scaling: ``softmax(w_k l_k + b_k)``. Labels may change.

    Args: see :class:`~monai_calib.posthoc.base.Calibrator`.
    Source: Guo et al., ICML 2017; https://arxiv.org/abs/1706.04599

    Example:
        >>> int(VectorScaling(3).free_parameters().sum())
        6
    """

    method = "vector"
    foldable = True

    def free_parameters(self) -> Tensor:
        free = torch.eye(self.num_classes, self.num_classes + 1, dtype=torch.bool)
        free[:, -1] = True
        return free


class MatrixScaling(_LinearScaling):
    """Matrix scaling ``softmax(W l + b)`` with off-diagonal and intercept regularisation (ODIR).

    Added to the mean likelihood are ``off_diagonal / (K (K - 1)) sum_{i != j} w_ij^2 + intercept / K sum_k b_k^2``.

    Args:
        num_classes, region: see :class:`~monai_calib.posthoc.base.Calibrator`.
        off_diagonal, intercept: strengths of the two terms, not negative.

    Source: Guo et al., ICML 2017; Kull et al., NeurIPS 2019; https://arxiv.org/abs/1910.12656

    Example:
        >>> MatrixScaling(3, off_diagonal=0.1).settings()["off_diagonal"]
        0.1
    """

    method = "matrix"
    foldable = True

    def __init__(
        self,
        num_classes: int,
        region: str | Region | None = None,
        off_diagonal: float = 1e-3,
        intercept: float = 1e-3,
    ) -> None:
        for name, value in (("off_diagonal", off_diagonal), ("intercept", intercept)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}: expected a strength of at least 0, got {value}")
        self.off_diagonal = off_diagonal
        self.intercept = intercept
        super().__init__(num_classes, region)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "off_diagonal": self.off_diagonal, "intercept": self.intercept}

    def free_parameters(self) -> Tensor:
        return torch.ones(self.num_classes, self.num_classes + 1, dtype=torch.bool)

    def strength(self) -> Tensor:
        k = self.num_classes
        strength = super().strength()
        strength[:, :-1] += (1 - torch.eye(k)) * 2 * self.off_diagonal / (k * (k - 1))
        strength[:, -1] += 2 * self.intercept / k
        return strength


class DirichletScaling(MatrixScaling):
    """Dirichlet calibration ``softmax(W log p + b)`` with ODIR: matrix scaling of log-probabilities.

    It answers the same to logits that differ by a common shift, which matrix scaling does not. Since ``log p`` is not
    linear in the logits it does not fold, and goes out as a head.

    Args: see :class:`MatrixScaling`.
    Source: Kull et al., NeurIPS 2019; https://arxiv.org/abs/1910.12656

    Example:
        >>> shifted = [DirichletScaling(2).apply(torch.tensor([[[1.0 + s], [0.0 + s]]])) for s in (0, 5)]
        >>> torch.allclose(*shifted)
        True
    """

    method = "dirichlet"
    foldable = False

    @staticmethod
    def search_input(logits: Tensor) -> Tensor:
        return logits.log_softmax(0)

    def make_head(self) -> nn.Module:
        return _LogSoftmaxHead(torch.eye(self.num_classes), torch.zeros(self.num_classes))


class _LogSoftmaxHead(LinearHead):
    def forward(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        log_p = torch.log_softmax(logits, 1).flatten(2)
        return (torch.matmul(self.weight, log_p) + self.bias.unsqueeze(1)).reshape(logits.shape)


def _listed(values: Tensor) -> str:
    return ", ".join(f"{value:.4g}" for value in values.tolist())
