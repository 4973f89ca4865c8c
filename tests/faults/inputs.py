"""Small good inputs of the readers; each function writes one into a new folder."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch


def folders(folder: Path) -> None:
    from own_data import blocks, noise, write_volume

    for number, name in enumerate("abcde"):
        write_volume(folder / f"images/{name}_scan.nii.gz", noise(number, (8, 6, 5)))
        write_volume(folder / f"labels/{name}_scan.nii.gz", blocks(number, (8, 6, 5), (0, 1, 2)))


def download(folder: Path) -> None:
    from official_layouts import msd_hippocampus

    msd_hippocampus(folder / "made")
    shutil.move(next((folder / "made").rglob("dataset.json")).parent, folder / "download")
    shutil.rmtree(folder / "made", ignore_errors=True)


def series(folder: Path) -> None:
    from synthetic_series import ras_affine, rotation, write_series

    affine = ras_affine(rotation(1, 20), (1.0, 1.0, 2.0), (5.0, 6.0, 7.0))
    write_series(folder / "series", np.arange(120).reshape(4, 5, 6), affine, slopes=np.ones(6), uid="1.2.3.4.5")


def series_and_map(folder: Path) -> None:
    from monai_calib.dicom import read_series

    series(folder)
    labels = (np.arange(120).reshape(4, 5, 6) % 3).astype(np.uint8)
    nib.save(nib.Nifti1Image(labels, read_series(folder / "series").affine), folder / "map.nii.gz")


def datalist(folder: Path) -> None:
    from own_data import blocks, noise, write_volume

    from monai_calib.datasets.datalist import write_datalist

    entries = []
    for number in range(4):
        write_volume(folder / f"imagesTr/{number}.nii.gz", noise(number, (8, 6, 5)))
        write_volume(folder / f"labelsTr/{number}.nii.gz", blocks(number, (8, 6, 5), (0, 1, 2)))
        files = {"image": f"imagesTr/{number}.nii.gz", "label": f"labelsTr/{number}.nii.gz"}
        entries.append({"case": f"case_{number}", "subject": str(number), **files, "sha256": {}})
    labels = {"0": "background", "1": "a", "2": "b"}
    lists = {"training": entries[:2], "validation": entries[2:3], "test": entries[3:]}
    write_datalist(folder / "datalist.json", {"name": "x", "modality": {"0": "MR"}, "labels": labels, **lists})


def decathlon(folder: Path) -> None:
    download(folder)
    for path in (folder / "download").iterdir():
        shutil.move(path, folder / path.name)
    (folder / "download").rmdir()


def nnunet(folder: Path) -> None:
    import own_data

    own_data.nnunet(folder, list("abcde"))


def table(suffix: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        folders(folder)
        names = [f"{name}_scan.nii.gz" for name in "abcde"]
        rows = [
            {"case": name[:1], "subject": f"s{name[:1]}", "image": f"images/{name}", "label": f"labels/{name}"}
            for name in names
        ]
        if suffix == ".json":
            (folder / "cases.json").write_text(json.dumps(rows))
        else:
            lines = [",".join(rows[0]), *[",".join(row.values()) for row in rows]]
            (folder / "cases.csv").write_text("\n".join(lines) + "\n")

    return prepare


def run(folder: Path) -> None:
    from synthetic_runs import write_run

    settings = {"bundle": "phantom", "loss_name": "ce", "network_name": "unet", "seed": 1, "split": "test"}
    write_run(folder / "run", settings, range(3))
    trained = {
        "settings": settings,
        "metric": "mean_dice",
        "epoch": 2,
        "best_value": 0.5,
        "best_epoch": 1,
        "seconds": 9.5,
    }
    (folder / "run" / "models").mkdir()
    (folder / "run" / "models" / "training.json").write_text(json.dumps(trained))
    table = {"title": "T", "source": "A. Author", "columns": ["method", "DSC"], "rows": [["CE", 0.8], ["NACL", None]]}
    (folder / "published.json").write_text(json.dumps({"format": "monai_calib/published/1", "tables": [table]}))


def new_network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(4, 3, 1))


def calibrated(folder: Path) -> None:
    from monai_calib.posthoc import calibrate

    torch.manual_seed(1)
    batches = [
        {"image": torch.randn(1, 1, 6, 6, 6), "label": torch.randint(0, 3, (1, 1, 6, 6, 6)), "case": [f"c{number}"]}
        for number in range(3)
    ]
    network = new_network()
    (folder / "models").mkdir()
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    calibrate(
        network,
        batches,
        num_classes=3,
        models_dir=folder / "models",
        method="temperature",
        force=True,
        spacing=(1, 1, 1),
    )


def new_trainer(folder: Path, resume: bool) -> Any:
    from ignite.engine import Engine

    from monai_calib.handlers import TrainingCheckpoint

    network = new_network()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
    validator = Engine(lambda engine, batch: None)

    def step(engine: Engine, batch: Any) -> None:
        optimizer.zero_grad()
        network(torch.ones(1, 1, 4, 4, 4)).square().mean().backward()
        optimizer.step()
        validator.state.metrics["dice"] = 0.5

    trainer = Engine(step)
    trainer.add_event_handler("EPOCH_COMPLETED", lambda: schedule.step())
    settings = {"epochs": 4, "seed": 1}
    TrainingCheckpoint(
        folder, network, optimizer, schedule, validator, "dice", resume=resume, settings=settings
    ).attach(trainer)
    trainer.network = network  # type: ignore[attr-defined]
    return trainer


def checkpoint(folder: Path) -> None:
    new_trainer(folder, False).run([0], max_epochs=2)


def cache(folder: Path) -> None:
    folders(folder)
    (folder / "cache").mkdir()
    fill_cache(folder)


def archive(kind: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        download(folder)
        if kind == "zip":
            with zipfile.ZipFile(folder / "download.zip", "w", zipfile.ZIP_DEFLATED) as packed:
                for path in sorted((folder / "download").rglob("*")):
                    packed.write(path, path.relative_to(folder))
        else:
            with tarfile.open(folder / "download.tar.gz", "w:gz") as packed:
                packed.add(folder / "download", "download")
        shutil.rmtree(folder / "download")

    return prepare


def pictures(folder: Path) -> None:
    from own_data import picture_folders

    picture_folders(folder, 5)


def maps(kind: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        from stored_maps import write_data

        write_data(folder, 3, kind)

    return prepare


def measured(folder: Path) -> None:
    from stored_maps import case_name, write_data

    from monai_calib.__main__ import main

    write_data(folder, 4, "npz")
    if main(["measure", str(folder / "maps"), str(folder / "labels"), str(folder / "run")]):
        raise AssertionError("measure")
    (folder / "list.txt").write_text(f"{case_name(0)}\n{case_name(1)}\n")


def patients(folder: Path) -> None:
    folders(folder)
    lines = ["case,patient", *[f"{name}_scan,p{name}" for name in "abcde"]]
    (folder / "patients.csv").write_text("\n".join(lines) + "\n")


def subjects(folder: Path) -> None:
    from stored_maps import case_name, write_data

    write_data(folder, 3, "npz")
    (folder / "subjects.csv").write_text("".join(f"{case_name(number)},s{number}\n" for number in range(3)))


def fill_cache(folder: Path) -> Any:
    from monai_calib.datasets.cache import PreparedDataset
    from monai_calib.transforms import LoadCased

    files = [
        {"image": str(path), "label": str(folder / "labels" / path.name)}
        for path in sorted((folder / "images").iterdir())
    ]
    dataset = PreparedDataset(files, LoadCased(("image", "label"), 3), cache_dir=folder / "cache")
    return [value for item in dataset for value in (item["image"], item["label"])]  # type: ignore[attr-defined]
