"""Which cases to review first: those whose expected Dice is lowest, and how well that finds the bad ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_calib.clinical.failure import FailureDetection, failure_detection, risk_coverage

from .columns import Column
from .comparison import Comparison, Method
from .figures import NEUTRAL, Figure, axis, figure_csv, new_plot, plain, style

__all__ = ["MethodReview", "Review", "review_of"]

MOST_CASES = 5
FEWEST_CASES = 3  # with fewer an order says nothing


@dataclass(frozen=True)
class MethodReview:
    """One method: how its expected Dice ranks cases, and the lowest of them.

    ``first`` has a case's name, its expected DSC, the structure with the least and its expected DSC, and the true DSC.
    """

    label: str
    detection: FailureDetection
    first: tuple[tuple[str, float, str, float, float], ...]


@dataclass(frozen=True)
class Review:
    """The section: every method that has an expected Dice, and the risk-coverage curves of all."""

    methods: tuple[MethodReview, ...]
    figure: Figure
    sentence: str


def review_of(comparison: Comparison) -> Review | None:
    """The section of a comparison, or None where no method has both a true and an expected DSC of enough cases."""
    expected = next((c for c in comparison.columns_of_kind("expected_dice") if c.metric.name == "expected_dice"), None)
    true = next(iter(comparison.columns_of_kind("dice")), None)
    if expected is None or true is None:
        return None
    known: list[tuple[Method, NDArray[np.float64], NDArray[np.float64]]] = []
    for method in comparison.methods:
        confidence, dice = (comparison.case_values(method.runs, column) for column in (expected, true))
        if np.isfinite(confidence).any() and np.isfinite(dice).sum() >= FEWEST_CASES:
            known.append((method, confidence, dice))
    if not known:
        return None
    methods = tuple(
        MethodReview(
            method.label,
            failure_detection(confidence, dice, comparison.subjects),
            tuple(_lowest(comparison, method, expected, confidence, dice)),
        )
        for method, confidence, dice in known
    )
    return Review(methods, _curves(known, methods), _sentence(methods))


def _lowest(
    comparison: Comparison,
    method: Method,
    expected: Column,
    confidence: NDArray[np.float64],
    dice: NDArray[np.float64],
) -> list[tuple[str, float, str, float, float]]:
    """The cases to look at first; one in which nothing was found before all others."""
    by_class = comparison.class_values(method.runs, expected)
    rows = []
    for i in np.argsort(np.where(np.isnan(confidence), -np.inf, confidence), kind="stable")[:MOST_CASES]:
        structure, least = "–", float("nan")
        if by_class is not None and np.isfinite(by_class[i]).any():
            k = int(np.nanargmin(by_class[i]))
            structure, least = comparison.class_names[k], float(by_class[i, k])
        rows.append((comparison.cases[i], float(confidence[i]), structure, least, float(dice[i])))
    return rows


def _curves(
    known: list[tuple[Method, NDArray[np.float64], NDArray[np.float64]]], methods: tuple[MethodReview, ...]
) -> Figure:
    plot = new_plot(
        420,
        tallest=0.95,
        xaxis=axis("share of cases kept, the surest first", tickformat=".0%", range=[0, 1.02]),
        yaxis=axis("mean of 1 − DSC of those kept", rangemode="tozero"),
    )
    rows: list[list[Any]] = []
    told = []
    for (method, confidence, dice), found in zip(known, methods, strict=True):
        look = style(method.place)
        curve = risk_coverage(confidence, dice)
        lines = {method.label: (curve, look["line"])}
        if len(known) == 1:
            lines["ordered by the true DSC"] = (risk_coverage(dice, dice), {"color": NEUTRAL, "dash": "dot"})
            lines["in random order"] = (
                risk_coverage(np.zeros(len(dice)), dice),
                {"color": NEUTRAL, "dash": "dash"},
            )
        for name, (points, line) in lines.items():
            plot["data"].append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "line": line,
                    "name": plain(name),
                    "legendgroup": plain(name),
                    "x": points.coverage,
                    "y": points.risk,
                    "hovertemplate": "%{x:.0%} kept: %{y:.3f}",
                }
            )
            rows += [[name, *point] for point in zip(points.coverage, points.risk, strict=True)]
        told.append(
            f"{method.label}: AURC {found.detection.aurc.value:.3f}, random {found.detection.random_aurc[0]:.3f}"
        )
    return Figure(
        "risk-coverage",
        "Risk against coverage",
        "Cases ordered by their expected DSC, the surest first. A curve that rises to the right has bad cases last: "
        "reviewing those with the lowest expected DSC finds them. A flat one tells nothing.",
        f"Risk-coverage curves of the cases. {'; '.join(told)}.",
        plot,
        figure_csv(["method", "share of cases kept", "mean of 1 - DSC"], rows),
    )


def _sentence(methods: tuple[MethodReview, ...]) -> str:
    """A statement of whether the order is better than chance, by the intervals of the rank correlation."""
    told = [m.label for m in methods if m.detection.spearman.low > 0]
    if len(told) == len(methods):
        return "The expected DSC ranks these cases better than chance" + (
            " with every method." if len(methods) > 1 else "."
        )
    if not told:
        return (
            "On these cases the order by expected DSC cannot be told from chance: the interval of Spearman's holds 0."
        )
    return f"The expected DSC ranks these cases better than chance with: {', '.join(told)}; not with the others."
