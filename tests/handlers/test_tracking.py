"""What is logged beside MONAI's MLFlowHandler, on an engine that it tracks; MLflow's client is a stand-in here.

``tests/consumers/mlflow`` runs it with MLflow itself.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler

from monai_calib.handlers import TrackedRun
from monai_calib.metrics import CalibrationHistogram, EvaluatedWriter, Protocol


class Client:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.params: dict[str, str] = {}
        self.artifacts: list[str] = []
        self.figures: list[str] = []
        self.status = "RUNNING"

    def get_run(self, run: str) -> Any:
        return SimpleNamespace(data=SimpleNamespace(params=self.params))

    def log_param(self, run: str, name: str, value: str) -> None:
        assert name not in self.params  # MLflow refuses another value
        self.params[name] = value

    def log_artifact(self, run: str, path: str) -> None:
        assert self.status == "RUNNING"
        self.artifacts.append(Path(path).name)

    def log_figure(self, run: str, figure: Any, name: str) -> None:
        self.figures.append(name)

    def set_terminated(self, run: str, status: str = "FINISHED") -> None:
        self.status = status


def monais(client: Client, closes: bool) -> MLFlowHandler:
    """MONAI's handler with a run open, without MLflow and without what it logs itself."""
    handler = MLFlowHandler.__new__(MLFlowHandler)
    handler.client, handler.cur_run = client, SimpleNamespace(info=SimpleNamespace(run_id="1"))
    handler.artifacts, handler.run_finish_status = (), "FINISHED"
    handler.system_metrics_monitor = None  # of MONAI 1.7
    attach = [Events.COMPLETED, handler.complete], [Events.COMPLETED, handler.close]
    handler.attach = lambda engine: [engine.add_event_handler(*each) for each in attach[: 1 + closes]]  # type: ignore[method-assign]
    return handler


def run(*handlers: Any, epochs: int = 1, step: Any = lambda engine, batch: None) -> None:
    engine = Engine(step)
    for handler in handlers:
        handler.attach(engine)
    engine.run([0], max_epochs=epochs)


def test_parameters_and_files_of_a_training_are_logged_before_monai_ends_the_run(tmp_path: Path) -> None:
    client = Client()
    client.params["known"] = "1"
    (tmp_path / "training.json").write_text("{}")
    parameters = {
        "loss_name": "nacl",
        "loss_args": {"margin": 5},
        "empty": {},
        "patch": [40, 56],
        "seed": 0,
        "known": 2,
    }
    tracked = TrackedRun({**parameters, "long": "x" * 501}, [tmp_path / "training.json", tmp_path / "absent.json"])
    run(tracked, monais(client, closes=True), epochs=3)
    texts = {
        "loss_name": "nacl",
        "loss_args.margin": "5",
        "empty": "{}",
        "patch": "[40, 56]",
        "seed": "0",
        "known": "1",
    }
    assert client.params == texts
    assert client.artifacts == ["training.json"]
    assert client.status == "FINISHED"


class Evaluates:
    """Names the folder when the run has completed, as EvaluatedFolder does."""

    def __init__(self, folder: Path, activation: Any = "softmax") -> None:
        self.folder, self.activation = folder, activation

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self.write)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.give_up)

    def write(self, engine: Engine) -> None:
        protocol = Protocol("mine", ["all", "union"], ["classwise_ece"])
        hist = CalibrationHistogram(2, activation=self.activation)
        hist.update(torch.zeros(1, 2, 4), torch.zeros(1, 1 if self.activation == "softmax" else 2, 4))
        writer = EvaluatedWriter(self.folder, ["background", "lesion"], [protocol])
        writer.add("a", {}, {"all": hist, "union": hist})
        writer.close({})
        (self.folder / "previews").mkdir()

    def give_up(self, engine: Engine, error: BaseException) -> None:
        raise error


def test_an_evaluation_is_logged_with_its_diagrams_and_ends(tmp_path: Path) -> None:
    client = Client()
    tracked = TrackedRun({"split": "test"}, evaluated=tmp_path / "eval", ends_run=True)
    run(tracked, Evaluates(tmp_path / "eval"), monais(client, closes=False))
    assert client.artifacts == ["calibration.json", "calibration.npz"]
    assert client.figures == ["reliability_all.png", "reliability_union.png"]  # boundary2mm was not measured
    assert client.status == "FINISHED"


def test_multi_label_predictions_have_no_top_label_to_draw(tmp_path: Path) -> None:
    client = Client()
    tracked = TrackedRun(evaluated=tmp_path / "eval")
    run(tracked, Evaluates(tmp_path / "eval", "sigmoid"), monais(client, closes=False))
    assert (client.figures, client.status) == ([], "RUNNING")


def test_a_failing_run_ends_as_failed_and_its_error_is_told(tmp_path: Path) -> None:
    client = Client()

    def fail(engine: Engine, batch: Any) -> None:
        raise ValueError("diverged")

    tracked = TrackedRun(evaluated=tmp_path / "eval", ends_run=True)
    with pytest.raises(ValueError, match="diverged"):
        run(tracked, Evaluates(tmp_path / "eval"), monais(client, closes=False), step=fail)
    assert client.status == "FAILED"


def test_nothing_happens_where_nothing_tracks(tmp_path: Path) -> None:
    run(TrackedRun({"seed": 0}, evaluated=tmp_path / "absent", ends_run=True))
