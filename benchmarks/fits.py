"""Our fits of vector scaling against SciPy's optimisers on the same cases: ``python benchmarks/fits.py``.

Cases are simulated: logits of K classes, wrong by a factor and an offset a class, labels drawn from the right ones.
Every optimiser starts at the best temperature, minimises the same sum in the same double precision, and stops where its
step is below 1e-4. Printed are passes over the voxels, seconds of a processor and the height above the lowest value
found.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import torch
from scipy.optimize import minimize

from monai_calib.posthoc import LogitCase, TemperatureScaling, VectorScaling, fit

RIDGE = 1e-6


def simulate(cases: int, voxels: int, classes: int) -> list[LogitCase]:
    """Cases whose right logits are ``0.4 l + b``."""
    generator = torch.Generator().manual_seed(0)
    made = []
    bias = torch.linspace(-0.5, 0.5, classes)[:, None]
    for number in range(cases):
        logits = 4 * torch.randn(classes, voxels, generator=generator)
        logits[0] += 6
        right = (0.4 * logits + bias).softmax(0)
        label = torch.multinomial(right.T, 1, generator=generator)[:, 0]
        made.append(LogitCase(str(number), logits, label))
    return made


class Objective:
    """Mean negative log-likelihood of vector scaling over the cases, with our pull to the start, and derivatives."""

    def __init__(self, cases: list[LogitCase], classes: int, temperature: float) -> None:
        self.cases, self.classes, self.passes = cases, classes, 0
        self.count = sum(case.label.numel() for case in cases)
        self.start = np.concatenate([np.full(classes, 1 / temperature), np.zeros(classes)])

    def __call__(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        self.passes += 1
        w, b = torch.tensor(theta).view(2, self.classes, 1)
        value, gradient = 0.0, torch.zeros(2, self.classes, dtype=torch.float64)
        for case in self.cases:
            for x, label, _ in case.slabs("all"):
                log_p = (w * x + b).log_softmax(0)
                value -= float(log_p.gather(0, label[None]).sum())
                error = log_p.exp().scatter_add(0, label[None], -torch.ones_like(x[:1]))
                gradient += torch.stack([(error * x).sum(1), error.sum(1)])
        away = theta - self.start
        pulled = value / self.count + 0.5 * RIDGE * float(away @ away)
        return pulled, gradient.flatten().numpy() / self.count + RIDGE * away

    def hessian(self, theta: np.ndarray) -> np.ndarray:
        self.passes += 1
        w, b = torch.tensor(theta).view(2, self.classes, 1)
        k = self.classes
        total = torch.zeros(2, k, 2, k, dtype=torch.float64)
        for case in self.cases:
            for x, _, _ in case.slabs("all"):
                p = (w * x + b).softmax(0)
                u = torch.stack([x, torch.ones_like(x)])  # (2, K, n)
                for a in range(k):
                    share = p[a] * ((torch.arange(k) == a).double()[:, None] - p)
                    total[:, a] += torch.einsum("cn,kn,dkn->cdk", u[:, a], share, u)
        return total.reshape(2 * k, 2 * k).numpy() / self.count + RIDGE * np.eye(2 * k)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--voxels", type=int, default=400_000)
    arguments = parser.parse_args()
    for classes in (3, 14):
        cases = simulate(arguments.cases, arguments.voxels, classes)
        temperature = TemperatureScaling(classes, region="all")
        began = time.process_time()
        fit([temperature], cases)
        search = time.process_time() - began
        found: dict[str, tuple[float, int, np.ndarray]] = {}
        ours = VectorScaling(classes, region="all")
        began = time.process_time()
        fit([ours], cases)
        state = ours.head.state_dict()
        theta = torch.stack([state["weight"].diagonal(), state["bias"]]).double().flatten().numpy()
        # its first passes search the start, which SciPy is given
        passes = ours.record.passes - temperature.record.passes
        found["ours"] = (time.process_time() - began - search, passes, theta)
        for method, options in (
            ("L-BFGS-B", {"gtol": 1e-6, "ftol": 1e-12}),
            ("BFGS", {"gtol": 1e-6}),
            ("Newton-CG", {"xtol": 1e-4}),
            ("trust-exact", {"gtol": 1e-6}),
        ):
            objective = Objective(cases, classes, temperature.temperature)
            hessian = objective.hessian if method in ("Newton-CG", "trust-exact") else None
            began = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = minimize(objective, objective.start, method=method, jac=True, hess=hessian, options=options)
            found[method] = (time.process_time() - began, objective.passes, result.x)
        value = Objective(cases, classes, temperature.temperature)
        heights = {name: value(x)[0] for name, (_, _, x) in found.items()}
        first = found["ours"][0]
        print(
            f"K = {classes}, {arguments.cases} cases of {arguments.voxels:,} voxels, {torch.get_num_threads()} thread"
        )
        for name, (seconds, passes, _) in found.items():
            above = heights[name] - min(heights.values())
            cost = f"{passes:3d} passes {seconds:6.1f} s ({seconds / first:4.1f} x)"
            print(f"  {name:12} {cost}, {above:.0e} above the best")


if __name__ == "__main__":
    main()
