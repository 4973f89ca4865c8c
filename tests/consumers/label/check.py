"""A MONAI Label server: inference in 3D and 2D, training, another network, tracking, epistemic scoring."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import torch
from direct import few_cases, run_bundle, volumes_apart
from server import Server, serving
from telling import tell, tell_versions

BUNDLES = Path(__file__).parents[3] / "bundles"
UNET = "msd_hippocampus_segmentation_3d"
SLICES = "msd_hippocampus_segmentation_2d"
RESIDUAL = "residual_segmentation_3d"  # the 3D bundle under another name, with the model of another network
EPOCHS = 12  # more than the bundle's own ten


def main(shared: Path, work: Path) -> None:
    tell_versions(["monailabel", "monai", "torch", "numpy", "pydicom", "mlflow"])
    data = few_cases(shared / "data", work / "data", training=8, validation=2)
    images = sorted(path.name.removesuffix(".nii.gz") for path in (shared / "images").iterdir())
    app, studies = make_app(work), make_studies(shared, data, work / "studies")
    add_model(app, UNET, BUNDLES / UNET, shared / "run" / "models")
    direct = {UNET: shared / "direct"}
    for name, bundle, network in ((SLICES, BUNDLES / SLICES, "unet"), (RESIDUAL, BUNDLES / UNET, "segresnet")):
        run, direct[name] = work / "runs" / name, work / "direct" / name
        short = {"epochs": 3, "visits_per_epoch": 4, "network_name": network}
        run_bundle(bundle, ["train"], dataset_dir=data, run_dir=run, **short)
        run_bundle(bundle, ["inference"], dataset_dir=shared / "images", run_dir=run, output_dir=direct[name])
        add_model(app, name, bundle, run / "models")
    models = f"{UNET},{SLICES},{RESIDUAL}"

    with serving(app, studies, work / "first.log", models=models) as server:
        for name, what in ((UNET, "3D"), (SLICES, "2D"), (RESIDUAL, "3D, a SegResNet's model")):
            tell(f"`/infer`, {what}", *volumes_apart(infer(server, name, images, work / "served" / name), direct[name]))
        train(server, app / "model" / UNET, shared, images, work)
        track(server, work)
        refuse(server, app / "model" / RESIDUAL, work / "first.log")
    set_network(app / "model" / RESIDUAL, "segresnet")

    with serving(app, studies, work / "second.log", models=models, epistemic_model=models) as server:
        offered = server.info()["models"][UNET]["config"]["model_filename"]
        tell("models offered after a training", offered == ["model.pt"], ", ".join(offered))
        for name in (UNET, SLICES, RESIDUAL):
            score(server, name, images)
        server.train(RESIDUAL, max_epochs=EPOCHS, val_split=0.34)
        direct[RESIDUAL] = work / "direct" / "residual_after"
        settings = {"dataset_dir": shared / "images", "output_dir": direct[RESIDUAL]}
        run_bundle(app / "model" / RESIDUAL, ["inference"], **settings)
        found = infer(server, RESIDUAL, images, work / "served" / "residual_after")
        tell("`/train` and `/infer` of a SegResNet, named in train.json", *volumes_apart(found, direct[RESIDUAL]))


def make_app(work: Path) -> Path:
    """MONAI Label's application for bundles, as its own command lays it down."""
    subprocess.run(
        ["monailabel", "apps", "--download", "--name", "monaibundle", "--output", work / "apps"],
        check=True,
        stdout=sys.stderr,
    )
    (work / "apps" / "monaibundle" / "model").mkdir(exist_ok=True)
    return work / "apps" / "monaibundle"


def make_studies(shared: Path, data: Path, studies: Path) -> Path:
    """A studies folder: the three images without labels, and training cases with theirs."""
    shutil.copytree(shared / "images", studies)
    (studies / "labels" / "final").mkdir(parents=True)
    for case in json.loads((data / "datalist.json").read_text())["training"]:
        if (studies / Path(case["image"]).name).exists():
            continue
        shutil.copy(data / case["image"], studies)
        shutil.copy(data / case["label"], studies / "labels" / "final" / Path(case["image"]).name)
    return studies


def add_model(app: Path, name: str, bundle: Path, models: Path) -> None:
    """The bundle in the application's folder, with the two files of a run that go with it."""
    folder = app / "model" / name
    shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("models", "eval", "logs"))
    (folder / "models").mkdir()
    for file in ("model.pt", "training.json"):
        shutil.copy(models / file, folder / "models")


def infer(server: Server, model: str, images: list[str], folder: Path) -> Path:
    for image in images:
        server.infer(model, image, folder / f"{image}_seg.nii.gz")
    return folder


def train(server: Server, bundle: Path, shared: Path, images: list[str], work: Path) -> None:
    """More epochs than the bundle's own ten: the schedule's end, the record, and the model taken afterwards."""
    before = (bundle / "models" / "model.pt").read_bytes()
    server.train(UNET, max_epochs=EPOCHS, val_split=0.34)
    record = json.loads((bundle / "models" / "training.json").read_text())
    last = torch.load(bundle / "models" / "checkpoint.ckpt", weights_only=False)
    rate = last["optimizer"]["param_groups"][0]["lr"]
    epochs = (record["settings"]["epochs"], record["epoch"])
    ended = f"last learning rate {rate:.2g}, training.json: {epochs[0]} epochs planned, {epochs[1]} done"
    tell(f"`/train`, {EPOCHS} epochs", rate < 1e-9 and epochs == (EPOCHS, EPOCHS), ended)
    direct = work / "direct" / "after"
    run_bundle(bundle, ["inference"], dataset_dir=shared / "images", output_dir=direct)
    equal, found = volumes_apart(infer(server, UNET, images, work / "served" / "after"), direct)
    trained = before != (bundle / "models" / "model.pt").read_bytes()
    tell("`/infer` after that, against the new `model.pt`", equal and trained, found)


def refuse(server: Server, bundle: Path, log: Path) -> None:
    """A training of train.json's U-Net over the model of a SegResNet, of which the server would load what fits."""
    before = (bundle / "models" / "model.pt").read_bytes()
    try:
        server.train(RESIDUAL, max_epochs=1, val_split=0.34)
        refused = False
    except RuntimeError:
        refused = "which is to be trained, got those of 'segresnet'" in log.read_text()
    kept = before == (bundle / "models" / "model.pt").read_bytes()
    result = ("refused" if refused else "not refused") + (", model kept" if kept else ", model replaced")
    tell("`/train` of a U-Net over a SegResNet's model", refused and kept, result)


def set_network(bundle: Path, name: str) -> None:
    file = bundle / "configs" / "train.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "network_name": name}, indent=4))


def track(server: Server, work: Path) -> None:
    """Two trainings that MLflow follows. One without tracking after them needs a new server: MONAI leaves its handler
    in the server's copy of the configuration, whatever the bundle."""
    address = f"sqlite:///{work / 'mlflow.db'}"
    for _ in range(2):
        server.train(UNET, max_epochs=1, val_split=0.34, tracking="mlflow", tracking_uri=address)
    mlflow.set_tracking_uri(address)
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    states = [run.info.status for run in runs]
    kept = sorted(set.intersection(*(set(run.data.metrics) for run in runs)))
    good = bool(runs) and set(states) == {"FINISHED"} and any("loss" in name for name in kept)
    tell("`/train` with `tracking: mlflow`, twice", good, f"runs {', '.join(states)}; {', '.join(kept)}")


def score(server: Server, name: str, images: list[str]) -> None:
    """Epistemic scoring: the server builds the network with dropout.

    It takes the entropy of class numbers for that of probabilities, so that its figures have any sign.
    """
    done = server.score(name, simulation_size=3, max_workers=1)
    entropies = [server.image_info(image).get("epistemic_entropy", float("nan")) for image in images]
    good = done["executed"] == len(images) and all(map(math.isfinite, entropies)) and len(set(entropies)) > 1
    numbers = ", ".join(f"{value:.3g}" for value in entropies)
    tell(f"epistemic scoring, {name}", good, f"{done['executed']} images, entropies {numbers}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
