"""A report's page as a run of an MLflow experiment."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["EXPERIMENT", "log_report"]

EXPERIMENT = "monai_experiment"
"""Name of the experiment in which ``monai.bundle run --tracking mlflow`` puts its runs."""


def log_report(
    uri: str, page: str | os.PathLike[str], runs: Sequence[str | os.PathLike[str]] = (), experiment: str = EXPERIMENT
) -> str:
    """Log a page to MLflow as a run of its own, which ends as ``FINISHED``, and return the run's identity.

    Needs MLflow (``pip install monai_calib[mlflow]``).

    Args:
        uri: tracking URI; the files of a SQLite database lie in ``mlruns`` beside it, where MONAI puts them.
        page: file to log.
        runs: folders that the page compares, as a parameter of the run.
        experiment: made if there is none of this name.

    Raises: ``ModuleNotFoundError`` without MLflow.
    """
    try:
        from mlflow import MlflowClient
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{uri}: expected MLflow, got {error}. pip install monai_calib[mlflow].") from error
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        beside = uri.startswith("sqlite:///")
        location = (
            Path(uri.removeprefix("sqlite:///")).absolute().parent.joinpath("mlruns").as_uri() if beside else None
        )
        identity = client.create_experiment(experiment, artifact_location=location)
    else:
        identity = found.experiment_id
    run = client.create_run(identity, run_name=time.strftime("report %Y-%m-%d %H:%M:%S")).info.run_id
    client.log_param(run, "compared", ", ".join(os.fspath(folder) for folder in runs)[:500])
    client.log_artifact(run, os.fspath(page))
    client.set_terminated(run)
    return str(run)
