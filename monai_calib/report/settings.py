"""Settings of the methods: what all share once, what tells them apart in columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .comparison import Comparison
from .runs import Run

__all__ = ["SettingsTable", "settings_table"]

# Told by other columns, or by the table of corrections.
_ELSEWHERE = frozenset(
    {"seed", "train_seconds", "training_seconds", "posthoc_region", "correction", "best_epoch", "site"}
)
# The default where several raters labelled: each rater's label a case of its own.
_DRAWN = ("rater_labels", "sample")
_FIRST = ("bundle", "loss_name", "network_name", "split")


@dataclass(frozen=True)
class SettingsTable:
    """Settings of a comparison's methods.

    ``common`` has name and value of what all methods share. Of the others, each that every method has is one of
    ``columns``; those that only some have, such as a margin, stand together in the last, "own settings". ``rows`` has
    a method's texts in the order of the columns.
    """

    common: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[str, ...]]


def settings_table(comparison: Comparison) -> SettingsTable:
    """The settings of every method, those that never converged included; of one method all are common."""
    methods = (*comparison.methods, *comparison.failed)
    told = {method.label: _of_runs((*method.runs, *method.failed)) for method in methods}
    if _one_rater(comparison):
        told = {label: {k: v for k, v in of.items() if (k, v) != _DRAWN} for label, of in told.items()}
    names = list(dict.fromkeys(name for settings in told.values() for name in settings))
    names.sort(key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    common, columns, own = [], [], []
    for name in names:
        values = [settings.get(name) for settings in told.values()]
        if None in values and name != "posthoc":
            own.append(name)
        elif len(set(values)) == 1:
            common.append((_words(name), str(values[0])))
        else:
            columns.append(name)
    rows = {}
    for label, settings in told.items():
        cells = [settings.get(name, "–") for name in columns]
        if own:
            cells.append(", ".join(f"{_words(name)} {settings[name]}" for name in own if name in settings) or "–")
        rows[label] = tuple(cells)
    heads = [*map(_words, columns), *(["own settings"] if own else [])]
    return SettingsTable(tuple(common), tuple(heads), rows)


def _one_rater(comparison: Comparison) -> bool:
    """Whether no case was measured against several raters, and every training had the default for them."""
    given = {str(run.settings.get(_DRAWN[0], _DRAWN[1])) for run in comparison.runs}
    return given == {_DRAWN[1]} and not comparison.columns_of_kind("dice_raters")


def _words(name: str) -> str:
    return {"posthoc": "after training"}.get(name, name.removesuffix("_name").replace("_", " "))


def _of_runs(runs: Sequence[Run]) -> dict[str, str]:
    """Every setting of a method's runs, those inside a mapping by their own names; several values with a stroke."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for key, value in run.settings.items():
            if key not in _ELSEWHERE and value not in ({}, None, ""):
                for name, setting in value.items() if isinstance(value, Mapping) else [(key, value)]:
                    text = f"{setting:g}" if isinstance(setting, float) else str(setting)
                    found.setdefault(str(name), []).append(text)
    return {name: " / ".join(dict.fromkeys(texts)) for name, texts in found.items()}
