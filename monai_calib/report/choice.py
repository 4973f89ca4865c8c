"""Hyper-parameters chosen on validation: of a loss trained with several settings, the test says nothing of the others.

Picking the best of several margins by their test figures would flatter the loss that has most margins to pick from.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_calib.files import read_json
from monai_calib.metrics.metric import Metric
from monai_calib.variants import choose_variant

from .grouping import Identity, identity_of
from .runs import Run, RunError, number

__all__ = [
    *("VALIDATION", "Choice", "Variant", "choose_on_validation", "mean_of_cases", "read_choices", "score_of"),
    "training_of",
]

RESULTS = "monai_calib/benchmark_results/1"

VALIDATION = ("validation", "val")
# What makes another loss, network or data set; whatever else differs is a hyper-parameter.
_NOT_CHOSEN = ("bundle", "loss_name", "network_name")
# A proper score, which rewards accuracy and calibration, in the first of these regions that validation measured.
_SCORE, _REGIONS = "nll", ("all", "dilated", "union", "foreground")


@dataclass(frozen=True)
class Variant:
    """One setting of a loss: its hyper-parameters in words, the criterion on validation, and runs evaluated there."""

    settings: str
    value: float
    num_runs: int
    chosen: bool


@dataclass(frozen=True)
class Choice:
    """The variants of a loss, and the figure on validation that chose; ``criterion`` is "" if nothing could."""

    loss: str
    criterion: str
    variants: tuple[Variant, ...]


def choose_on_validation(runs: Sequence[Run]) -> tuple[list[Run], list[Choice]]:
    """Keeps, of the variants of each loss, the runs of the one that is best on validation.

    Variants differ in hyper-parameters (``loss_args`` and whatever else a run says of itself) and share bundle, loss
    and network; what was fitted on a training afterwards stays or goes with it. The best has the lowest NLL over the
    whole volume, or over a region where that was not measured: mean over validation cases and over the seeds that all
    variants have. Where a variant has not been evaluated on validation nothing is chosen: all stay.

    Args:
        runs: of any splits. Runs on ``validation`` beside such on another split serve the choice alone.

    Returns: the runs to compare, in their order, and what was chosen, or could not be.
    """
    held_out = [run for run in runs if run.split not in VALIDATION]
    if not held_out:
        return list(runs), []
    on_validation: dict[Identity, list[Run]] = {}
    for run in runs:
        if run.split in VALIDATION and "posthoc" not in run.settings:
            on_validation.setdefault(training_of(run), []).append(run)
    families: dict[Identity, dict[Identity, list[Run]]] = {}
    for run in held_out:
        training = training_of(run)
        family = tuple(pair for pair in training if pair[0] in _NOT_CHOSEN)
        families.setdefault(family, {}).setdefault(training, []).append(run)
    dropped: set[Run] = set()
    choices = []
    for family, variants in families.items():
        if len(variants) > 1:
            choice = _choose(dict(family), [(training, on_validation.get(training, [])) for training in variants])
            choices.append(choice)
            for members, variant in zip(variants.values(), choice.variants, strict=True):
                if choice.criterion and not variant.chosen:
                    dropped.update(members)
    return [run for run in held_out if run not in dropped], choices


def training_of(run: Run) -> Identity:
    """The training: a run's settings without what it was evaluated on, against what, and what was fitted afterwards."""
    return tuple(
        pair
        for pair in identity_of(run.settings)
        if pair[0] not in ("split", "site", "truth") and not pair[0].startswith("posthoc")
    )


def _choose(family: Mapping[str, str], variants: Sequence[tuple[Identity, list[Run]]]) -> Choice:
    criterion = score_of([run for _, members in variants for run in members])
    values: list[dict[Hashable, float]] = [{} for _ in variants]
    if criterion is not None and all(members for _, members in variants):
        values = [{run.seed: mean_of_cases(run, criterion) for run in members} for _, members in variants]
    chosen = choose_variant(dict(enumerate(values)))
    decided = criterion is not None and bool(np.isfinite(chosen.means).all())
    common = set.intersection(*(set(training) for training, _ in variants))
    return Choice(
        family.get("loss_name", "unnamed"),
        criterion.label if criterion is not None and decided else "",
        tuple(
            Variant(_in_words(training, common), mean, len(members), decided and place == chosen.best)
            for place, ((training, members), mean) in enumerate(zip(variants, chosen.means, strict=True))
        ),
    )


def score_of(runs: Sequence[Run]) -> Metric | None:
    """The score to choose by: one that all runs measured, of the largest region."""
    names = set.intersection(*(set(run.values) for run in runs)) if runs else set()
    scores = [metric for name in names if (metric := runs[0].metrics[name]).kind == _SCORE]
    ranked = [m for kind in _REGIONS for m in scores if (m.region or "").startswith(kind)]
    return ranked[0] if ranked else None


def _in_words(training: Identity, common: set[tuple[str, str]]) -> str:
    own = [f"{name.replace('_', ' ')} {value}" for name, value in training if (name, value) not in common]
    return ", ".join(own) or "defaults"


def mean_of_cases(run: Run, metric: Metric) -> float:
    """Mean of a metric over the cases that have it, NaN if none has."""
    values = run.values[metric.name]
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def read_choices(results: Path) -> list[Choice]:
    """The choices that ``benchmark`` made, from its results.json; the runs of the others are not in its report.

    Raises: :class:`~.runs.RunError` for another file.
    """
    try:
        content = read_json(results, RESULTS, error=RunError)
        return [
            Choice(
                f"{choice['family']} ({choice['group']})",
                f"{choice['by']} on validation, seeds {', '.join(str(seed) for seed in choice['seeds'])}",
                tuple(
                    Variant(setting, number(value), len(choice["seeds"]), setting == choice["chosen"])
                    for setting, value in choice["values"].items()
                ),
            )
            for choice in content["choices"]
        ]
    except RunError:
        raise
    except Exception as error:
        raise RunError(f"{results} is not a benchmark's results.json: {error}. Run the benchmark again.") from error
