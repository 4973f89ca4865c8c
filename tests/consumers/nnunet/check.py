"""nnU-Net trains with our trainers by its own commands: labels, ignore label, regions, both; validates and predicts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from datasets import SYNTHETIC, write_real, write_synthetic
from telling import tell, tell_versions

TRAINERS = {
    "nnUNetTrainerCalibrated": "recommended",
    "nnUNetTrainerMbLS": "dice_ce+mbls",
    "nnUNetTrainerNACL": "dice_ce+nacl",
}
HERE = Path(__file__).parent
DATA = Path(os.environ.get("MONAI_CALIB_DATA", HERE.parents[3] / "shared" / "data"))
EPOCHS = 4


def settle(work: Path) -> None:
    """Folders and processes of nnU-Net, and where it finds our trainers, as the documentation says."""
    for name in ("raw", "preprocessed", "results"):
        (work / name).mkdir(exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(work / name)
    command = [sys.executable, "-m", "monai_calib.nnunet"]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    os.environ |= {"nnUNet_extTrainer": found}
    os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "nnUNet_compile": "false"}
    os.environ |= {"SHORT_EPOCHS": str(EPOCHS), "PYTHONPATH": f"{HERE / 'short'}{os.pathsep}{os.environ['PYTHONPATH']}"}


def call(*command: str) -> str:
    """Run one of nnU-Net's commands; its last words, or those of its error."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        print(done.stdout[-3000:], flush=True)
        raise RuntimeError(f"{' '.join(command)}: {done.stdout.strip().splitlines()[-1]}")
    return done.stdout


def documented(work: Path) -> str:
    """A trainer of one's own as the documentation writes it, in a folder of one's own. Returns its name."""
    text = (HERE.parents[2] / "docs" / "integrations_nnunet.md").read_text()
    (work / "trainers").mkdir()
    (work / "trainers" / "mine.py").write_text(text.split("```python\n")[1].split("```")[0])
    os.environ |= {"nnUNet_extTrainer": f"{os.environ['nnUNet_extTrainer']}{os.pathsep}{work / 'trainers'}"}  # noqa: SIM112
    return "nnUNetTrainerMine"


def train(work: Path, dataset: str, trainer: str) -> Path:
    call("nnUNetv2_train", dataset, "3d_fullres", "0", "-tr", trainer, "-device", "cpu", "--npz")
    return work / "results" / dataset / f"{trainer}__nnUNetPlans__3d_fullres"


def check_training(work: Path, dataset: str, kind: str, trainer: str) -> None:
    """One training of nnU-Net's command: finite, falling losses, and maps of the validation cases."""
    what = f"`nnUNetv2_train … -tr {trainer}`, {kind}"
    try:
        folder = train(work, dataset, trainer)
    except RuntimeError as error:
        tell(what, False, str(error))
        return
    log = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False)["logging"]
    losses = [float(value) for value in log["train_losses"]]
    maps = sorted((folder / "fold_0" / "validation").glob("*.npz"))
    finite = all(np.isfinite(np.load(path)["probabilities"]).all() for path in maps)
    falling = bool(np.isfinite([*losses, *log["val_losses"]]).all()) and losses[-1] < losses[0]
    result = f"loss {losses[0]:.3f} → {losses[-1]:.3f} in {EPOCHS} × 6 steps, {len(maps)} validation maps"
    tell(what, falling and finite and len(maps) > 0, result)


def check_prediction(work: Path, dataset: str, kind: str) -> None:
    """``nnUNetv2_predict`` finds the trainer again."""
    trainer, target = next(iter(TRAINERS)), work / "predicted" / dataset
    try:
        where = ["-i", str(work / "raw" / dataset / "imagesTr"), "-o", str(target), "-d", dataset, "-c", "3d_fullres"]
        call("nnUNetv2_predict", *where, "-f", "0", "-tr", trainer, "-device", "cpu", "-npp", "1", "-nps", "1")
    except RuntimeError as error:
        tell(f"`nnUNetv2_predict`, {kind}", False, str(error))
        return
    written = len(list(target.glob("*.nii.gz")))
    tell(f"`nnUNetv2_predict`, {kind}", written == 6, f"{written} segmentations of 6 images")


def by_hand(name: str, logits: torch.Tensor, target: torch.Tensor, regions: bool, ignore: int | None) -> torch.Tensor:
    """The loss of a head from losses of classes: of regions the mean over channels, each one of two classes."""
    from monai_calib.losses import build_loss

    arguments = {"margin": 5.0} if "mbls" in name else {}
    if not regions:
        return build_loss(name, **arguments, **({} if ignore is None else {"ignore_index": ignore}))(logits, target)
    target = target.long()
    ignored = target[:, -1] == 1 if ignore is not None else torch.zeros_like(target[:, 0], dtype=torch.bool)
    values = []
    for z, y in zip(logits.unbind(1), target.unbind(1), strict=False):  # the last of the target has no logits
        two, y = torch.stack([-z / 2, z / 2], 1), y.masked_fill(ignored, 9)
        penalized = {"recommended": "nacl_outer", "dice_ce+mbls": "mbls", "dice_ce+nacl": "nacl"}[name]
        weight = {"alpha": 1.0} if name == "recommended" else {}
        value = build_loss(penalized, **arguments, **weight, ignore_index=9)(two, y)
        dice = build_loss("dice_ce", include_background=False, lambda_ce=0.0, ignore_index=9)(two, y)
        values.append(value + dice)
    return torch.stack(values).mean()


def check_value(dataset: str, kind: str) -> None:
    """On a batch of nnU-Net's loader: the trainer's loss, over all heads, and the same by hand."""
    from nnunetv2.run.run_training import get_trainer_from_args

    largest = 0.0
    for trainer_name, loss_name in TRAINERS.items():
        trainer = get_trainer_from_args(dataset, "3d_fullres", 0, trainer_name, device=torch.device("cpu"))
        trainer.initialize()
        trainer.dataloader_train, trainer.dataloader_val = trainer.get_dataloaders()
        batch = next(trainer.dataloader_train)
        with torch.no_grad():
            heads = trainer.network(batch["data"])
            value = trainer.loss(heads, batch["target"])
        weights = [0.5**k for k in range(len(heads) - 1)]  # nnU-Net leaves out the coarsest head
        labels = trainer.label_manager
        expected = sum(
            weight * by_hand(loss_name, head, target, labels.has_regions, labels.ignore_label)
            for weight, head, target in zip(weights, heads, batch["target"], strict=False)
        ) / sum(weights)
        largest = max(largest, abs(float(value - expected)) / abs(float(expected)))
    what = f"loss of a batch of nnU-Net's loader over {len(weights)} heads, {kind}, against `build_loss` by hand"
    tell(what, largest < 1e-5, f"largest relative difference of {len(TRAINERS)} trainers {largest:.1g}")


def main(work: Path) -> None:
    tell_versions(["nnunetv2", "torch", "monai"])
    settle(work)
    datasets = {kind: write_synthetic(work / "raw", 901 + k, kind) for k, kind in enumerate(SYNTHETIC)}
    if (DATA / "Task04_Hippocampus").is_dir():
        datasets["real hippocampus"] = write_real(work / "raw", 910, DATA / "Task04_Hippocampus", 12)
    numbers = [name[7:10] for name in datasets.values()]
    call("nnUNetv2_plan_and_preprocess", "-d", *numbers, "-c", "3d_fullres", "-np", "1", "-npfp", "1")
    os.environ |= {"nnUNet_n_proc_DA": "0"}  # augmentation in the training process; the planner takes no 0
    check_training(work, datasets["labels"], "labels, the documentation's own trainer", documented(work))
    for kind, dataset in datasets.items():
        check_value(dataset, kind)
        for trainer in TRAINERS if kind in SYNTHETIC else ["nnUNetTrainerCalibrated"]:
            check_training(work, dataset, kind, trainer)
    for kind in ("labels", "regions and ignore"):
        check_prediction(work, datasets[kind], kind)


if __name__ == "__main__":
    main(Path(sys.argv[2]))
