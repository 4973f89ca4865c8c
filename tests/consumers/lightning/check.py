"""Lightning runs the examples in ``docs/examples``: precisions, checkpoints, multipliers, torchmetrics beside."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from telling import tell, tell_versions
from torchmetrics.classification import MulticlassCalibrationError

from monai_calib.losses import build_loss
from monai_calib.metrics import CalibrationHistogram, ece

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
sys.path.insert(0, str(EXAMPLES))
from lightning import Segmentation  # noqa: E402
from plain_pytorch import CLASSES  # noqa: E402


class Kept(pl.Callback):
    """Training losses and metrics of every epoch."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.losses.append(float(trainer.callback_metrics["train_loss"]))


def fit(work: Path, precision: str, module: pl.LightningModule, epochs: int = 3) -> tuple[pl.Trainer, list[float]]:
    pl.seed_everything(0, verbose=False)
    kept = Kept()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "log_every_n_steps": 1}
    trainer = pl.Trainer(
        max_epochs=epochs, precision=precision, default_root_dir=work / precision, callbacks=[kept], accelerator="cpu",
        **quiet,
    )  # fmt: skip
    trainer.fit(module)
    return trainer, kept.losses


def logits_and_labels(module: pl.LightningModule) -> tuple[torch.Tensor, torch.Tensor]:
    module.eval()
    with torch.no_grad():
        pairs = [(module(image), label) for image, label in module.val_dataloader()]
    return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])


def check_precision(work: Path, precision: str) -> None:
    pl.seed_everything(0, verbose=False)
    module = Segmentation()
    trainer, losses = fit(work, precision, module)
    metrics = trainer.callback_metrics
    falling = all(math.isfinite(loss) for loss in losses) and losses[-1] < losses[0]
    logged = f"loss {losses[0]:.3f} → {losses[-1]:.3f}, logged ECE {float(metrics['val_ece']):.4f}"
    tell(f"`docs/examples/lightning.py`, precision {precision}", falling and 0 <= metrics["val_ece"] <= 1, logged)

    path = work / f"{precision}.ckpt"
    trainer.save_checkpoint(path)
    again = Segmentation.load_from_checkpoint(path)
    logits, label = logits_and_labels(module)
    same = torch.equal(logits_and_labels(again)[0], logits)
    equal = torch.equal(again.loss(logits, label), module.loss(logits, label))
    tell(f"checkpoint saved and loaded, precision {precision}", same and equal, "logits and loss equal, bit for bit")


def check_metric(work: Path) -> None:
    """The logged ECE is torchmetrics' of the same voxels: both bin the top label's confidence 15 times."""
    module = Segmentation()
    trainer, _ = fit(work, "32-true", module, epochs=1)
    logits, label = logits_and_labels(module)
    theirs = MulticlassCalibrationError(CLASSES, n_bins=15)(logits.movedim(1, -1).reshape(-1, CLASSES), label.flatten())
    difference = abs(float(trainer.callback_metrics["val_ece"]) - float(theirs))
    tell(
        "logged ECE against torchmetrics' `MulticlassCalibrationError`",
        difference < 1e-5,
        f"difference {difference:.1g}",
    )


def check_learnt(work: Path) -> None:
    """Multipliers of a loss are part of the module's state."""
    module = Segmentation(loss="crac")
    trainer, _ = fit(work, "32-true", module, epochs=1)
    with torch.no_grad():
        module.loss.penalty.multiplier.fill_(0.25)
    path = work / "crac.ckpt"
    trainer.save_checkpoint(path)
    again = Segmentation.load_from_checkpoint(path)
    multiplier = again.loss.penalty.multiplier
    tell(
        "`crac`: multipliers in the checkpoint",
        bool((multiplier == 0.25).all()),
        f"{tuple(multiplier.shape)} read back",
    )


def check_channels() -> None:
    """bfloat16 logits of sigmoid channels, as a step of autocast hands them on."""
    logits, label = torch.randn(2, 3, 8, 8).bfloat16(), torch.randint(0, 2, (2, 3, 8, 8))
    loss = build_loss("recommended", activation="sigmoid")
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits, label)
    histogram = CalibrationHistogram(3, activation="sigmoid")
    histogram.update(logits.float(), label)
    equal = torch.equal(value, loss(logits.float(), label)) and 0 <= ece(histogram, class_index=0) <= 1
    tell("sigmoid channels under bf16 autocast", equal, f"loss {float(value):.3f} in {value.dtype}")


def main(work: Path) -> None:
    tell_versions(["pytorch-lightning", "torchmetrics", "torch", "monai"])
    for precision in ("32-true", "bf16-mixed"):
        check_precision(work, precision)
    check_metric(work)
    check_learnt(work)
    check_channels()
    for example in ("plain_pytorch.py", "lightning.py"):
        done = subprocess.run([sys.executable, EXAMPLES / example], cwd=work, capture_output=True, text=True)
        said = (done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]])[-1]
        tell(f"`python docs/examples/{example}`", done.returncode == 0, said[:120])


if __name__ == "__main__":
    main(Path(sys.argv[2]))
