"""A calibration loss and exact calibration metrics in a plain PyTorch training. Copy it and put in your data.

``python docs/examples/plain_pytorch.py`` trains a small U-Net on pictures of discs for a moment.
"""

from __future__ import annotations

import torch
from monai.networks.nets import BasicUNet
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from monai_calib.losses import build_loss
from monai_calib.metrics import CalibrationHistogram, classwise_ece, ece

CLASSES = 3


class Discs(Dataset):  # your data: image (C, *spatial) and class numbers (1, *spatial)
    def __init__(self, cases: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
        self.cases = []
        for _ in range(cases):
            centre = 16 + 4 * torch.randn(2, generator=generator)
            distance = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2).sqrt()
            label = (distance < 10).long() + (distance < 5)
            image = label + torch.randn(32, 32, generator=generator)
            self.cases.append((image[None], label[None]))

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.cases[index]


def train(epochs: int = 4, device: str = "cuda" if torch.cuda.is_available() else "cpu") -> list[dict[str, float]]:
    """Train, and return loss and calibration of every epoch."""
    torch.manual_seed(0)
    network = BasicUNet(spatial_dims=2, in_channels=1, out_channels=CLASSES, features=(8, 8, 16, 16, 32, 8)).to(device)
    loss_function = build_loss("recommended").to(device)  # takes logits, not probabilities
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    training = DataLoader(Discs(32, seed=1), batch_size=8, shuffle=True)
    validation = DataLoader(Discs(16, seed=2), batch_size=8)
    history = []
    for _ in range(epochs):
        network.train()
        losses = []
        for image, label in training:
            optimizer.zero_grad()
            loss = loss_function(network(image.to(device)), label.to(device))
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())

        network.eval()
        histogram = CalibrationHistogram(CLASSES)  # of all voxels of the validation; one a case for a mean over cases
        with torch.no_grad():
            for image, label in validation:
                histogram.update(network(image.to(device)), label.to(device))
        metrics = {"ece": ece(histogram), "classwise_ece": float(classwise_ece(histogram))}
        history.append({"loss": float(torch.stack(losses).mean()), **metrics})
        print(", ".join(f"{name} {value:.4f}" for name, value in history[-1].items()), flush=True)
    return history


if __name__ == "__main__":
    train()
