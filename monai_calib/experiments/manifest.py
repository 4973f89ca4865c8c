"""The file that holds a comparison's plan and the state of every run, whole at any moment."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

from monai_calib.files import FileError, read_json, write_json

from .folders import MismatchError
from .plan import Plan, Run
from .specification import Named

__all__ = ["MANIFEST_FORMAT", "Entry", "Manifest", "now"]

MANIFEST_FORMAT = "monai_calib/benchmark/1"


def now() -> str:
    return datetime.fromtimestamp(time.time(), timezone.utc).isoformat(timespec="seconds")


@dataclass
class Entry:
    """Known facts of one run.

    Attributes:
        state: ``waiting``, ``running``, ``done`` or ``failed``.
        attempts: how often it was started, over all invocations.
        start, end: of the last attempt, in UTC.
        host: where the last attempt ran.
        seconds: of all steps, over all attempts, as far as they ended.
        training_seconds: of the epochs that are kept; null for a run that was made without a record of it.
        trained: the training has ended, though perhaps before its last epoch.
        error: the last lines of a failure.
        dataset_dir, settings: what the run was made with beyond what its own folder records.
    """

    state: str = "waiting"
    attempts: int = 0
    start: str | None = None
    end: str | None = None
    host: str | None = None
    seconds: float = 0.0
    training_seconds: float | None = None
    trained: bool = False
    error: list[str] = field(default_factory=list)
    dataset_dir: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


class Manifest:
    """``OUT/manifest.json``; every change is written at once, to a file of its own that then takes the place.

    Runs that are not in this plan, of an earlier one for the same folder, stay as they are.

    Args:
        plan: the plan now.

    Raises:
        ValueError: the file there is none of this format.
        MismatchError: a run of the plan was made with another data set or other settings.
    """

    def __init__(self, plan: Plan) -> None:
        self.path = plan.output / "manifest.json"
        self.plan = plan
        self.entries = self._read()
        for run in plan.runs:
            entry = self.entries.setdefault(run.key, Entry())
            if entry.attempts or entry.state == "done":
                self._compare(run, entry)
            entry.dataset_dir, entry.settings = str(run.dataset_dir), dict(run.settings)

    def __getitem__(self, run: Run) -> Entry:
        return self.entries[run.key]

    def update(self, run: Run, **changes: Any) -> None:
        """Changes what is known of a run, and writes."""
        for name, value in changes.items():
            setattr(self.entries[run.key], name, value)
        self.write()

    def write(self) -> None:
        content = {
            "format": MANIFEST_FORMAT,
            "written": now(),
            "plan": _plan_fields(self.plan),
            "runs": {key: asdict(entry) for key, entry in self.entries.items()},
        }
        write_json(self.path, content)

    def _read(self) -> dict[str, Entry]:
        if not self.path.exists():
            return {}
        advice = "Move it away: finished runs are known by their folders."
        content = read_json(self.path, MANIFEST_FORMAT, advice)
        try:
            return {key: Entry(**fields) for key, fields in content["runs"].items()}
        except Exception as error:  # whatever is in the file
            raise FileError(
                f"{self.path}: expected the state of every run ({type(error).__name__}: {error}). {advice}"
            ) from error

    def _compare(self, run: Run, entry: Entry) -> None:
        differences = []
        if entry.dataset_dir != str(run.dataset_dir):
            differences.append(f"dataset_dir was {entry.dataset_dir}, the plan has {run.dataset_dir}")
        for name in sorted(entry.settings.keys() | run.settings.keys()):
            before, planned = entry.settings.get(name, "the default"), run.settings.get(name, "the default")
            if before != planned:
                differences.append(f"{name} was {before!r}, the plan has {planned!r}")
        if differences:
            raise MismatchError(
                f"{run.key} was made with other settings: {'; '.join(differences)}. Use another OUT, or move "
                f"{run.folder} and its entry in {self.path} away."
            )


def _plan_fields(plan: Plan) -> dict[str, Any]:
    runs = plan.runs
    return {
        "bundles": sorted({str(run.bundle) for run in runs}),
        "dataset_dir": sorted({str(run.dataset_dir) for run in runs}),
        "networks": sorted({run.network for run in runs}),
        "losses": {run.loss.key: {"family": run.family, **_named(run.loss)} for run in runs},
        "seeds": sorted({run.seed for run in runs}),
        "posthoc": {method.key: _named(method) for run in runs for method in run.posthoc},
        "settings": dict(runs[0].settings) if runs else {},
        "uncorrected": plan.uncorrected,
        "choose_by": plan.choose_by,
        "runs": [run.key for run in runs],
    }


def _named(named: Named) -> dict[str, Any]:
    return {"name": named.name, "arguments": dict(named.arguments)}
