"""Which runs are seeds of one method, and how a method is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from .runs import Run, RunError

__all__ = ["Identity", "group_seeds", "identity_of", "labels_of"]

# What differs between two runs of one method, like anything in seconds; all else the bundle reports is the method's.
_PER_RUN = frozenset({"seed", "started", "finished", "date", "run_dir", "best_epoch", "device", "correction"})

Identity = tuple[tuple[str, str], ...]


def group_seeds(runs: Iterable[Run]) -> dict[Identity, list[Run]]:
    """Runs whose settings are equal but for the seed, in the order of their seeds.

    Raises: :class:`~.runs.RunError` if one seed is there twice, since it must not count twice.
    """
    groups: dict[Identity, list[Run]] = {}
    for run in runs:
        groups.setdefault(identity_of(run.settings), []).append(run)
    for members in groups.values():
        members.sort(key=lambda run: (len(run.seed), run.seed))
        for left, right in pairwise(members):
            if left.seed == right.seed != "unknown":
                raise RunError(
                    f"{left.evaluation} and {right.evaluation} are evaluations of one method, seed and split, which "
                    "would count twice. Name one of them, or say in run: of calibration.json what tells them apart."
                )
    return groups


def identity_of(settings: Mapping[str, Any]) -> Identity:
    """The settings that make a method, those inside a mapping such as ``loss_args`` under their own names."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if key not in _PER_RUN and not key.endswith("_seconds") and value is not None:
            prefix = "posthoc " if key.startswith("posthoc") else ""
            pairs = {f"{prefix}{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {key: value}
            flat |= {
                str(k): f"{setting:g}" if isinstance(setting, float) else str(setting) for k, setting in pairs.items()
            }
    return tuple(sorted(flat.items()))


def labels_of(identities: list[dict[str, str]]) -> list[str]:
    """The loss, followed by the settings that tell methods apart, and by what was fitted afterwards.

    A setting is told if it takes several values, or if only some of the methods of a loss have it. That only one loss
    has a margin tells nothing.
    """
    labels = []
    for number, identity in enumerate(identities, start=1):
        siblings = [other for other in identities if other.get("loss_name") == identity.get("loss_name")]
        parts = [identity.get("loss_name", f"run {number}")]
        for key, value in identity.items():
            alike = [o for o in siblings if "posthoc" in o] if key.startswith("posthoc") else siblings
            values = {other[key] for other in identities if key in other}
            telling = len(values) > 1 or any(key not in other for other in alike)
            if telling and key not in ("loss_name", "posthoc"):
                parts.append(value if key.endswith("_name") or key in ("bundle", "split") else _pair(key, identity))
        fitted = f" + {identity['posthoc']}" if "posthoc" in identity else ""
        labels.append(" · ".join(parts) + fitted)
    return labels


def _pair(key: str, identity: Mapping[str, str]) -> str:
    return f"{key.replace('_', ' ')} {identity[key]}"
