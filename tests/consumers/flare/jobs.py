"""Folders of NVFlare jobs: FedAvg on a bundle by monai-nvflare, and a federated calibration."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BUNDLE = "config/bundle"


def _write(job: Path, name: str, server: Mapping[str, Any], clients: Mapping[str, Mapping[str, Any]]) -> None:
    apps = {"app_server": ("server", "config_fed_server.json", server)}
    apps |= {f"app_{site}": (site, "config_fed_client.json", config) for site, config in clients.items()}
    for app, (_, file, config) in apps.items():
        (job / app / "config").mkdir(parents=True)
        (job / app / "config" / file).write_text(json.dumps({"format_version": 2, **config}, indent=1))
    meta = {"name": name, "resource_spec": {}, "min_clients": len(clients)}
    meta["deploy_map"] = {app: [target] for app, (target, _, _) in apps.items()}
    (job / "meta.json").write_text(json.dumps(meta, indent=1))


def fedavg_job(job: Path, bundle: Path, sites: Mapping[str, Path], rounds: int) -> None:
    """FedAvg over sites, each with the folder of its own data."""
    server = {
        "workflows": [
            {
                "id": "scatter_and_gather",
                "name": "ScatterAndGather",
                "args": {
                    "min_clients": len(sites), "num_rounds": rounds, "aggregator_id": "aggregator",
                    "persistor_id": "persistor", "shareable_generator_id": "shareable_generator",
                    "train_task_name": "train",
                },
            }
        ],
        "components": [
            {
                "id": "persistor",
                "path": "monai_nvflare.monai_bundle_persistor.MonaiBundlePersistor",
                "args": {"bundle_root": BUNDLE},
            },
            {
                "id": "shareable_generator",
                "name": "FullModelShareableGenerator",
            },
            {
                "id": "aggregator",
                "name": "InTimeAccumulateWeightedAggregator",
                "args": {"expected_data_kind": "WEIGHT_DIFF"},
            },
            {
                "id": "selector",
                "name": "IntimeModelSelector",
            },
        ],
    }  # fmt: skip
    clients = {}
    for site, data in sites.items():
        algo = {
            "bundle_root": BUNDLE,
            "local_epochs": 1,
            "train_kwargs": {"dataset_dir": str(data), "epochs": rounds},  # the learning rate ends with the last round
            "eval_kwargs": {"dataset_dir": str(data), "split": "validation"},
        }
        executor = {
            "path": "monai_nvflare.client_algo_executor.ClientAlgoExecutor",
            "args": {"client_algo_id": "client_algo", "key_metric": "mean_dice"},
        }
        clients[site] = {
            "executors": [{"tasks": ["train", "submit_model", "validate"], "executor": executor}],
            "components": [{"id": "client_algo", "path": "monai.fl.client.MonaiAlgo", "args": algo}],
        }
    _write(job, "fedavg", server, clients)
    for app in ("app_server", *(f"app_{site}" for site in sites)):
        shutil.copytree(bundle, job / app / BUNDLE)


def calibration_job(
    job: Path, bundle: Path, sites: Mapping[str, Path], model: Path, notes: Path, server_args: Mapping[str, Any]
) -> None:
    """A federated calibration of a model that every site holds; what leaves a site is noted in ``notes/SITE.jsonl``."""
    server = {
        "workflows": [
            {"id": "calibration", "path": "calibration_server.FederatedCalibration", "args": dict(server_args)}
        ]
    }
    clients = {}
    for site, data in sites.items():
        args = {"bundle": str(bundle), "dataset_dir": str(data), "model": str(model), "classes": server_args["classes"]}
        tasks = ["sums", "histograms"]
        clients[site] = {
            "executors": [{"tasks": tasks, "executor": {"path": "calibration_site.CalibrationSite", "args": args}}],
            "task_result_filters": [
                {
                    "tasks": tasks,
                    "filters": [
                        {"path": "calibration_site.OnlySums", "args": {"note": str(notes / f"{site}.jsonl")}},
                    ],
                }
            ],
        }
    _write(job, "calibration", server, clients)
    for app, code in {
        "app_server": "calibration_server.py",
        **{f"app_{s}": "calibration_site.py" for s in sites},
    }.items():
        (job / app / "custom").mkdir()
        shutil.copy(HERE / code, job / app / "custom")
