"""Tracking of a run by MLflow, beside what MONAI's handler logs: parameters, files, diagrams, and how it ended."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler

from monai_calib.handlers.reliability import draw_reliability
from monai_calib.metrics.evaluated import read_evaluated

__all__ = ["TrackedRun"]

_log = logging.getLogger(__name__)
_LONGEST = 500


class TrackedRun:
    """Completes what MONAI's ``MLFlowHandler`` tracks on the same engine; without one it does nothing.

    ``python -m monai.bundle run --tracking mlflow`` puts that handler behind all others, where it logs losses and
    metrics. This one adds parameters when an epoch begins; files and the diagrams of an evaluation when the engine has
    completed; and a run whose engine failed ends as ``FAILED``. Needs no MLflow itself, and matplotlib for diagrams.

    List it **first**: the first handler that is told of an error ends the telling. An evaluation's files are logged
    when all other handlers have completed.

    Args:
        parameters: of the run; nested ones are joined by dots, and those longer than 500 characters left out.
        artifacts: files to log.
        evaluated: an evaluated folder, whose files are logged without its subfolders, and ``reliability_REGION.png``.
        regions: to draw, of those that were measured.
        ends_run: whether to end the run as ``FINISHED``, which MONAI does for trainers alone.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any] | None = None,
        artifacts: Sequence[str | os.PathLike[str]] = (),
        evaluated: str | os.PathLike[str] | None = None,
        regions: Sequence[str] = ("all", "union", "boundary2mm", "boundary2vx"),
        ends_run: bool = False,
    ) -> None:
        self.parameters = dict(_plain(parameters or {}))
        self.artifacts = [Path(path) for path in artifacts]
        self.evaluated = None if evaluated is None else Path(evaluated)
        self.regions = list(regions)
        self.ends_run = ends_run
        self._told: set[str] = set()

    def attach(self, engine: Engine) -> None:
        """Log to whatever tracks ``engine``."""
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)
        engine.add_event_handler(Events.EPOCH_STARTED, self._tell)
        if self.evaluated is None:
            engine.add_event_handler(Events.COMPLETED, self._complete)
        else:
            engine.add_event_handler(Events.STARTED, self._complete_last)

    def _complete_last(self, engine: Engine) -> None:
        """Get behind the handlers that were attached after this one, among them the one that names the folder."""
        if not engine.has_event_handler(self._complete, Events.COMPLETED):
            engine.add_event_handler(Events.COMPLETED, self._complete)

    def _tell(self, engine: Engine) -> None:
        for tracker, run in _tracked(engine):
            if run not in self._told:
                known = tracker.client.get_run(run).data.params
                for name, value in self.parameters.items():
                    if name not in known:
                        tracker.client.log_param(run, name, value)
                self._told.add(run)

    def _complete(self, engine: Engine) -> None:
        for tracker, run in _tracked(engine):
            inside = sorted(self.evaluated.iterdir()) if self.evaluated is not None else []
            for path in (*self.artifacts, *inside):
                if path.is_file():
                    tracker.client.log_artifact(run, str(path))
            if self.evaluated is not None:
                self._draw(tracker, run, self.evaluated)
            if self.ends_run:
                tracker.close()

    def _draw(self, tracker: MLFlowHandler, run: str, folder: Path) -> None:
        evaluated = read_evaluated(folder)
        for region in self.regions:
            if region not in evaluated.regions:
                continue
            pooled = evaluated.pooled(region)
            if pooled.activation == "softmax":  # others have no top label to draw
                try:
                    tracker.client.log_figure(run, draw_reliability(pooled, title=region), f"reliability_{region}.png")
                except ImportError as error:
                    _log.warning("no reliability diagrams: %s. pip install monai_calib[report] draws them.", error)
                    return

    def _fail(self, engine: Engine, error: BaseException) -> None:
        for tracker, run in _tracked(engine):
            tracker.client.set_terminated(run, "FAILED")
        raise error


def _tracked(engine: Engine) -> Iterator[tuple[MLFlowHandler, str]]:
    """MONAI's handlers on an engine that have a run open, and its identity."""
    owners = (getattr(handler, "__self__", None) for handler, *_ in engine._event_handlers[Events.COMPLETED])
    for tracker in dict.fromkeys(owner for owner in owners if isinstance(owner, MLFlowHandler)):
        if tracker.cur_run is not None:
            yield tracker, tracker.cur_run.info.run_id


def _plain(parameters: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and texts, as MLflow keeps parameters."""
    for name, value in parameters.items():
        if isinstance(value, Mapping) and value:
            yield from _plain(value, f"{prefix}{name}.")
            continue
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        if len(text) <= _LONGEST:
            yield f"{prefix}{name}", text
