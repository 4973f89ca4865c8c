"""NVFlare's Client API and recipe on a bundle, a process a site, and the federated calibration of ``flare`` in it."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.recipe import SimEnv
from taking import take_cases
from telling import tell, tell_versions

sys.path.insert(0, str(Path(__file__).parents[1] / "flare"))
import calibrating

ROUNDS = 2


def main(shared: Path, work: Path) -> None:
    tell_versions(["nvflare", "monai", "torch"])
    bundle = shared / "bundle"
    sites = {site: take_cases(shared / "data", work / "data" / site, of) for site, of in calibrating.SHARES.items()}
    parser = ConfigParser(ConfigParser.load_config_file(bundle / "configs" / "train.json"))
    network = {
        name: parser.get_parsed_content(f"networks#unet#{name}")
        for name in parser["networks"]["unet"]
        if name[0] != "_"
    }
    recipe = FedAvgRecipe(
        name="fedavg",
        model={"class_path": "monai.networks.nets.BasicUNet", "args": network},
        min_clients=len(sites),
        num_rounds=ROUNDS,
        train_script=str(Path(__file__).with_name("client.py")),
        train_args=f"{bundle} {work / 'data'} {ROUNDS}",
        key_metric="mean_dice",
    )
    recipe.execute(SimEnv(clients=list(sites), num_threads=len(sites), workspace_root=str(work / "sim_fedavg")))
    found = sorted(work.glob("sim_fedavg/**/FL_global_model.pt"))
    weights = torch.load(found[0], map_location="cpu", weights_only=True)["model"] if found else {}
    same = set(weights) == set(parser.get_parsed_content("network_def").state_dict())
    trained = len(list(work.glob("data/*_bundle/models/training.json")))
    tell(
        f"FedAvgRecipe of {ROUNDS} rounds, Client API around MonaiAlgo, a process a site",
        bool(found) and same and trained == len(sites),
        f"global model of {len(weights)} tensors, those of the bundle's network; {trained} sites trained",
    )
    torch.save({name: torch.as_tensor(value) for name, value in weights.items()}, work / "global.pt")
    calibrating.check_calibration(shared, work, sites, work / "global.pt", {"temperature": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
