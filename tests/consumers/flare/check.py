"""Federated training and calibration of a bundle: MonaiAlgo alone, then NVFlare with a process for each site."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from calibrating import SHARES, check_calibration, simulate
from federation import run_in_federation
from jobs import fedavg_job
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, ModelType
from monai.fl.utils.exchange_object import ExchangeObject
from taking import take_cases
from telling import tell, tell_versions

METHODS = {"temperature": None, "isotonic": "union"}  # and the region of the fit


def algo(bundle: Path, data: Path, rounds: int) -> MonaiAlgo:
    made = MonaiAlgo(
        bundle_root=str(bundle),
        train_kwargs={"dataset_dir": str(data), "epochs": rounds},
        eval_kwargs={"dataset_dir": str(data), "split": "validation"},
    )
    made.initialize(extra={ExtraItems.CLIENT_NAME: data.name})
    return made


def check_algo(shared: Path, work: Path, sites: dict[str, Path], rounds: int = 2) -> None:
    """FedAvg by hand, with MonaiAlgo as every federation of MONAI uses it."""
    algos = {}
    for site, data in sites.items():
        shutil.copytree(shared / "bundle", work / "algo" / site)
        algos[site] = algo(work / "algo" / site, data, rounds)
    weights = {name: value.clone() for name, value in algos["site-1"].trainer.network.state_dict().items()}
    dice = []
    for _ in range(rounds):
        diffs = []
        for one in algos.values():
            one.train(ExchangeObject(weights=dict(weights)))
            diffs.append(one.get_weights().weights)
        for name in weights:
            weights[name] = weights[name] + sum(torch.as_tensor(diff[name]) for diff in diffs) / len(diffs)
        found = [one.evaluate(ExchangeObject(weights=dict(weights))).metrics["mean_dice"] for one in algos.values()]
        dice.append(float(np.mean(found)))
    best = algos["site-1"].get_weights(extra={ExtraItems.MODEL_TYPE: ModelType.BEST_MODEL}).weights
    lowest = algos["site-1"].trainer.optimizer.param_groups[0]["lr"]
    for one in algos.values():
        one.finalize()
    tell(
        f"MonaiAlgo, {rounds} rounds of train, get_weights, evaluate at two sites; then the best model",
        dice[-1] > 0 and set(best) == set(weights) and lowest < 1e-6,
        f"mean Dice {' → '.join(f'{value:.3f}' for value in dice)}; learning rate at the end {lowest:.1g}",
    )


def check_fedavg(shared: Path, work: Path, sites: dict[str, Path], rounds: int = 2) -> Path:
    """FedAvg by NVFlare; returns the global model as a state dict."""
    fedavg_job(work / "fedavg", shared / "bundle", sites, rounds)
    model = simulate(work / "fedavg", work / "sim_fedavg") / "FL_global_model.pt"
    trained = [json.loads(path.read_text()) for path in work.glob("sim_fedavg/site-*/**/training.json")]
    epochs = [one["settings"]["epochs"] for one in trained]
    tell(
        f"NVFlare simulator, a process a site, FedAvg of {rounds} rounds on the bundle as it is",
        model.is_file() and epochs == [rounds] * 2,
        f"global model {model.stat().st_size / 1e6:.1f} MB; each site trained {epochs} epochs",
    )
    out = work / "predictions"
    call = [sys.executable, "-m", "monai.bundle", "run", "--config_file", shared / "bundle/configs/inference.json"]
    where = ["--bundle_root", shared / "bundle", "--dataset_dir", shared / "images", "--output_dir", out]
    subprocess.run(list(map(str, [*call, *where, "--run_dir", work / "none", "--model_path", model])), check=True)
    written = sorted(path.name for path in out.iterdir())
    tell("the global model in `inference.json`", len(written) == 6, f"{len(written)} files for three volumes")
    weights = torch.load(model, map_location="cpu", weights_only=True)["model"]
    torch.save({name: torch.as_tensor(value) for name, value in weights.items()}, work / "global.pt")
    return work / "global.pt"


def main(shared: Path, work: Path) -> None:
    tell_versions(["nvflare", "monai-nvflare", "monai", "torch"])
    sites = {site: take_cases(shared / "data", work / "data" / site, shares) for site, shares in SHARES.items()}
    check_algo(shared, work, sites)
    model = check_fedavg(shared, work, sites)
    check_calibration(shared, work, sites, model, METHODS)
    check_calibration(
        shared, work, sites, model, {"vector": None}, run_in_federation, "provisioned federation with certificates"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
