"""MLflow on a bundle by ``--tracking mlflow``: training, evaluation and report, read from MLflow's database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from taking import take_cases
from telling import tell, tell_versions

FEW = {"training": (0, 8), "validation": (0, 2), "test": (0, 3)}


class Runs:
    """A training's folder, and the runs that MLflow knows of it by their kind."""

    def __init__(self, bundle: Path, data: Path, folder: Path) -> None:
        self.bundle, self.data, self.folder = bundle, data, folder
        self.uri = f"sqlite:///{folder / 'mlruns.db'}"

    def run(self, *configs: str, more: tuple[str, ...] = ()) -> int:
        """Run configurations laid over each other, tracked."""
        files = [str(self.bundle / "configs" / f"{name}.json") for name in configs]
        where = ["--bundle_root", self.bundle, "--dataset_dir", self.data, "--run_dir", self.folder]
        call = [
            sys.executable,
            "-m",
            "monai.bundle",
            "run",
            "--config_file",
            files,
            *where,
            "--tracking",
            "mlflow",
            *more,
        ]
        return subprocess.run(list(map(str, call))).returncode

    def tracked(self, kind: str) -> list[Any]:
        """Runs whose name begins with a word, the newest first."""
        client = MlflowClient(self.uri)
        found = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
        return [run for run in found if run.info.run_name.startswith(kind)]

    def files(self, run: Any) -> list[str]:
        return [file.path for file in MlflowClient(self.uri).list_artifacts(run.info.run_id)]

    def steps(self, run: Any, metric: str) -> int:
        return len(MlflowClient(self.uri).get_metric_history(run.info.run_id, metric))


def check_training(runs: Runs) -> None:
    ended = runs.run("train", more=("--epochs", "2", "--loss_name", "nacl", "--seed", "3"))
    (run,) = runs.tracked("training")
    data, files = run.data, runs.files(run)
    expected = {"loss_name": "nacl", "seed": "3", "network_name": "unet", "epochs": "2", "max_epochs": "2"}
    told = {name: data.params.get(name) for name in expected}
    logged = [name for name in ("train_loss", "mean_dice", "lr_0", "lr") if name in data.metrics]
    tell(
        "training with `--tracking mlflow`: parameters, losses, metrics, files",
        ended == 0
        and told == expected
        and {"train_loss", "mean_dice"} <= set(logged)
        and run.info.status == "FINISHED",
        f"{run.info.status}; {len(data.params)} parameters ({', '.join(f'{k} {v}' for k, v in told.items())}); "
        f"{', '.join(f'{name} at {runs.steps(run, name)} steps' for name in logged)}; files {len(files)}",
    )
    tell(
        "its `training.json` and the executed configuration as artifacts",
        "training.json" in files and any(name.startswith("config_") for name in files),
        ", ".join(sorted(files)),
    )


def check_evaluation(runs: Runs) -> None:
    ended = runs.run("train", "evaluate")
    (run,) = runs.tracked("evaluation")
    metrics, files = run.data.metrics, runs.files(run)
    wanted = {"reliability_all.png", "reliability_union.png", "calibration.json", "calibration.npz"}
    diagrams = sum(name.endswith(".png") for name in files)
    calibration = [name for name in metrics if name.startswith(("ece", "classwise", "nll", "brier", "adaptive"))]
    tell(
        "evaluation: metrics of calibration, diagrams, the evaluated folder's files; the run has ended",
        ended == 0 and run.info.status == "FINISHED" and wanted <= set(files) and len(calibration) >= 20
        and run.data.params["loss_name"] == "nacl",
        f"{run.info.status}; {len(metrics)} metrics, {len(calibration)} of calibration; "
        f"{diagrams} diagrams and {len(files) - diagrams} files",
    )  # fmt: skip
    inside = [path.name for path in (runs.folder / "eval").iterdir()]
    tell(
        "database beside `eval`, not in it; the training is still there after the evaluation",
        (runs.folder / "mlruns.db").is_file() and "mlruns.db" not in inside and len(runs.tracked("training")) == 1,
        "RUN/mlruns.db, files in RUN/mlruns",
    )


def check_report(runs: Runs, work: Path) -> None:
    page = work / "report.html"
    call = [sys.executable, "-m", "monai_calib", "report", runs.folder, "--output", page, "--mlflow", runs.uri]
    ended = subprocess.run(list(map(str, call))).returncode
    (run,) = runs.tracked("report")
    tell(
        "`monai_calib report --mlflow URI`: the page as a run of the experiment",
        ended == 0 and runs.files(run) == ["report.html"] and run.info.status == "FINISHED",
        f"{run.info.status}; report.html, {page.stat().st_size / 1e6:.1f} MB",
    )


def check_failure(runs: Runs) -> None:
    ended = runs.run("train", more=("--epochs", "2", "--learning_rate", "1e30"))
    newest = runs.tracked("training")[0]
    tell(
        "a training that diverges ends as FAILED, and the next is a run of its own",
        ended != 0 and newest.info.status == "FAILED" and len(runs.tracked("training")) == 2,
        f"{newest.info.status}; exit status {ended}",
    )


def main(shared: Path, work: Path) -> None:
    tell_versions(["mlflow", "monai", "torch"])
    runs = Runs(shared / "bundle", take_cases(shared / "data", work / "data", FEW), work / "run")
    check_training(runs)
    check_evaluation(runs)
    check_report(runs, work)
    check_failure(runs)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
