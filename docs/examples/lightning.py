"""A calibration loss and exact calibration metrics in a LightningModule. Copy it and put in your network and data.

Call your copy otherwise: a file ``lightning.py`` hides the package ``lightning``.

``python docs/examples/lightning.py`` trains it for a moment; it needs ``pip install pytorch-lightning`` besides.
"""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from monai.networks.nets import BasicUNet
from plain_pytorch import CLASSES, Discs
from torch import Tensor
from torch.utils.data import DataLoader

from monai_calib.losses import build_loss
from monai_calib.metrics import CalibrationHistogram, classwise_ece, ece


class Segmentation(pl.LightningModule):
    """Trains with a loss by name, and logs ECE and classwise ECE of every validation."""

    def __init__(self, loss: str = "recommended", lr: float = 1e-2) -> None:
        super().__init__()
        self.save_hyperparameters()
        features = (8, 8, 16, 16, 32, 8)
        self.network = BasicUNet(spatial_dims=2, in_channels=1, out_channels=CLASSES, features=features)
        self.loss = build_loss(loss)  # a module: it moves with this one, and what it learns is saved with it
        self.histogram = CalibrationHistogram(CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        image, label = batch
        loss: Tensor = self.loss(self(image), label)  # half-precision logits are computed in float32
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.histogram = CalibrationHistogram(CLASSES)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        image, label = batch
        self.histogram.update(self(image).float(), label)

    def on_validation_epoch_end(self) -> None:
        self.histogram.all_reduce()  # exact over several processes; nothing with one
        self.log("val_ece", ece(self.histogram), rank_zero_only=True)
        self.log("val_classwise_ece", float(classwise_ece(self.histogram)), rank_zero_only=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Discs(32, seed=1), batch_size=8, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Discs(16, seed=2), batch_size=8)


if __name__ == "__main__":
    pl.seed_everything(0)
    trainer = pl.Trainer(max_epochs=4, precision="bf16-mixed" if torch.cuda.is_available() else "32-true")
    trainer.fit(Segmentation())
    print(trainer.callback_metrics)
