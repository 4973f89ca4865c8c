"""The page as a run of MLflow, whose client is a stand-in here; ``tests/consumers/mlflow`` runs it with MLflow."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from monai_calib.report.tracking import EXPERIMENT, log_report


class Client:
    """Keeps what it is told, for all who ask the same address."""

    kept: dict[str, dict[str, Any]]

    def __init__(self, tracking_uri: str) -> None:
        self.mine = self.kept.setdefault(tracking_uri, {"experiments": {}, "runs": {}})

    def get_experiment_by_name(self, name: str) -> Any:
        found = name in self.mine["experiments"]
        return SimpleNamespace(experiment_id=f"id of {name}") if found else None

    def create_experiment(self, name: str, artifact_location: str | None) -> str:
        self.mine["experiments"][name] = artifact_location
        return f"id of {name}"

    def create_run(self, experiment_id: str, run_name: str) -> Any:
        run = f"run {len(self.mine['runs']) + 1}"
        self.mine["runs"][run] = {"experiment": experiment_id, "name": run_name, "status": "RUNNING", "params": {}}
        return SimpleNamespace(info=SimpleNamespace(run_id=run))

    def log_param(self, run: str, name: str, value: str) -> None:
        self.mine["runs"][run]["params"][name] = value

    def log_artifact(self, run: str, path: str) -> None:
        self.mine["runs"][run]["file"] = path

    def set_terminated(self, run: str) -> None:
        self.mine["runs"][run]["status"] = "FINISHED"


def test_each_page_is_a_run_of_the_experiment_of_the_trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Client.kept = {}
    mlflow = ModuleType("mlflow")
    mlflow.MlflowClient = Client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    uri = f"sqlite:///{tmp_path / 'mlruns.db'}"
    assert [log_report(uri, tmp_path / "report.html", ["a", "b"]) for _ in range(2)] == ["run 1", "run 2"]
    kept = Client.kept[uri]
    assert kept["experiments"] == {EXPERIMENT: (tmp_path / "mlruns").as_uri()}  # where MONAI puts files, too
    for run in kept["runs"].values():
        assert (run["experiment"], run["status"]) == (f"id of {EXPERIMENT}", "FINISHED")
        assert (run["file"], run["params"]) == (str(tmp_path / "report.html"), {"compared": "a, b"})
        assert run["name"].startswith("report ")
    log_report("https://mlflow.example", tmp_path / "report.html", experiment="mine")
    assert Client.kept["https://mlflow.example"]["experiments"] == {"mine": None}


def test_without_mlflow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install monai_calib\[mlflow\]"):
        log_report("sqlite:///mlruns.db", "report.html")
