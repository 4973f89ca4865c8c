"""Names on a command line, checked before anything starts: a misspelt one would cost a night, or change nothing."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path

from monai_calib.files import read_json
from monai_calib.losses import PRESETS, build_loss
from monai_calib.posthoc import METHODS

from .specification import Named

__all__ = ["check_corrections", "check_losses", "check_settings"]

_RUN_OPTIONS = frozenset(
    {"run_id", "init_id", "final_id", "meta_file", "logging_file", "tracking", "workflow_type", "workflow_name"}
    | {"tracking_uri", "experiment_name", "run_name", "save_execute_config", "is_not_rank0"}
)
"""Options of ``monai.bundle run`` and of its tracking, which no configuration file names."""


def check_losses(losses: Iterable[Named], option: str = "--losses") -> None:
    """Build every loss once. Raises ``ValueError`` naming the loss and the nearest there is.

    Example:
        >>> check_losses([Named("nalc")])
        Traceback (most recent call last):
        ValueError: --losses nalc: unknown loss 'nalc'. Did you mean 'nacl'? ...
    """
    for loss in losses:
        for part in loss.name.split("+"):
            if part.strip() not in PRESETS:
                raise ValueError(f"{option} {loss.name}: {_unknown('loss', part.strip(), PRESETS)}")
        try:
            build_loss(loss.name, **loss.arguments)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{option} {loss.key}: {error}") from error


def check_corrections(corrections: Iterable[Named]) -> None:
    """Compare names and arguments of corrections with those there are. Raises ``ValueError`` naming the nearest."""
    for correction in corrections:
        if correction.name == "auto" and not correction.arguments:
            continue
        if correction.name not in METHODS:
            raise ValueError(f"--posthoc {correction.name}: {_unknown('correction', correction.name, METHODS)}")
        try:
            inspect.signature(METHODS[correction.name]).bind(2, **{"region": None, **correction.arguments})
        except TypeError as error:
            raise ValueError(f"--posthoc {correction.key}: {error}.") from error


def check_settings(settings: Iterable[str], bundles: Sequence[Path]) -> None:
    """Look for every setting in the bundles' configurations; of ``train#trainer``, the first part counts.

    Raises ``ValueError`` naming the nearest there is.
    """
    for bundle in bundles:
        known = set(_RUN_OPTIONS)
        for name in ("train", "evaluate", "calibrate"):
            content = read_json(bundle / "configs" / f"{name}.json")
            known |= {key.lstrip("+") for key in content}
        for setting in settings:
            first = setting.replace("::", "#").partition("#")[0]
            if first not in known:
                raise ValueError(f"--set {setting}: {bundle.name}: {_unknown('setting', first, known)}")


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r}.{hint} There are {', '.join(names)}."
