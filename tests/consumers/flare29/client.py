"""A site's training in NVFlare's Client API: MonaiAlgo on a bundle, with the folder ``data/SITE`` of its own."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nvflare.client as flare
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, FlStatistics
from monai.fl.utils.exchange_object import ExchangeObject
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType


def main(bundle: Path, data: Path, rounds: int) -> None:
    flare.init()
    site = flare.get_site_name()
    mine = shutil.copytree(bundle, Path(data, f"{site}_bundle"))  # which the training writes into
    where = {"dataset_dir": str(data / site)}
    algo = MonaiAlgo(
        bundle_root=str(mine),
        train_kwargs={**where, "epochs": rounds},
        eval_kwargs={**where, "split": "validation"},
    )
    algo.initialize(extra={ExtraItems.CLIENT_NAME: site})
    while flare.is_running():
        received = flare.receive()
        if received is None:
            break
        weights = ExchangeObject(weights=received.params)
        metrics = algo.evaluate(weights).metrics
        algo.train(weights)
        sent = algo.get_weights()
        steps = sent.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS]
        flare.send(
            FLModel(
                params_type=ParamsType.DIFF,
                params=sent.weights,
                metrics={"mean_dice": float(metrics["mean_dice"])},
                meta={"NUM_STEPS_CURRENT_ROUND": steps},
            )
        )
    algo.finalize()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
