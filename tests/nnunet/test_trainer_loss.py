"""What our trainers put in the place of nnU-Net's loss; that nnU-Net trains with it: ``tests/consumers/nnunet``."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_calib.losses import build_loss
from monai_calib.nnunet import TRAINERS
from monai_calib.nnunet.loss import CalibratedLoss, loss_of_labels


class Heads(nn.Module):
    """Weighted sum over heads, as nnU-Net's wrapper."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, heads: list[Tensor], targets: list[Tensor]) -> Tensor:
        return sum(w * self.loss(h, t) for w, h, t in zip((0.75, 0.25), heads, targets, strict=True))  # type: ignore[return-value]


class Base:
    """The parts of nnU-Net's trainer that the loss is built from."""

    def __init__(self, has_regions: bool, ignore_label: int | None, deep: bool) -> None:
        self.label_manager = SimpleNamespace(has_regions=has_regions, ignore_label=ignore_label)
        self.enable_deep_supervision = deep
        self.device = torch.device("cpu")
        self.log: list[str] = []

    def _build_loss(self) -> nn.Module:
        return Heads(nn.MSELoss()) if self.enable_deep_supervision else nn.MSELoss()

    def print_to_log_file(self, text: str) -> None:
        self.log.append(text)


class Trainer(CalibratedLoss, Base):
    loss_name = "dice_ce+mbls"
    loss_arguments = {"margin": 1.0}  # noqa: RUF012


@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize("ignore", [None, 3])
def test_labels(deep: bool, ignore: int | None) -> None:
    trainer = Trainer(has_regions=False, ignore_label=ignore, deep=deep)
    heads = [torch.randn(2, 3, 8, 8, 8), torch.randn(2, 3, 4, 4, 4)]
    target = torch.randint(0, 3 if ignore is None else 4, (2, 1, 8, 8, 8)).float()
    targets = [target, target[..., ::2, ::2, ::2]]
    by_hand = build_loss("dice_ce+mbls", margin=1.0, ignore_index=ignore)
    each = [by_hand(head, label) for head, label in zip(heads, targets, strict=True)]
    loss = trainer._build_loss()
    value = loss(heads, targets) if deep else loss(heads[0], targets[0])
    torch.testing.assert_close(value, 0.75 * each[0] + 0.25 * each[1] if deep else each[0])
    assert "dice_ce+mbls, margin=1.0" in trainer.log[0]


class Started(Base):
    """What nnU-Net's trainer counts."""

    current_epoch, num_epochs, num_iterations_per_epoch, started = 250, 1000, 250, 0

    def on_train_epoch_start(self) -> None:
        self.started += 1


class Fading(CalibratedLoss, Started):
    loss_name = "dice_ce_fading"


def test_a_dice_that_fades_is_told_how_far_the_training_is() -> None:
    trainer = Fading(has_regions=True, ignore_label=None, deep=True)
    trainer.loss = trainer._build_loss()
    trainer.on_train_epoch_start()
    assert trainer.started == 1
    weights = [buffer for name, buffer in trainer.loss.named_buffers() if name.endswith("dice.weight")]
    assert [weight.item() for weight in weights] == [0.5]


@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_regions_with_ignored_voxels_are_nnunets_binary_cross_entropy(kind: torch.dtype) -> None:
    """Its ``DC_and_BCE_loss``: masked by the last channel, summed over regions, divided by the voxels that count."""
    loss = loss_of_labels("ce", has_regions=True, ignore_label=9)
    logits, target = torch.randn(2, 3, 6, 6, 6), torch.rand(2, 4, 6, 6, 6) < 0.4
    mask = ~target[:, -1:]
    bce = F.binary_cross_entropy_with_logits(logits, target[:, :-1].float(), reduction="none")
    torch.testing.assert_close(3 * loss(logits, target.to(kind)), (bce * mask).sum() / mask.sum())


def test_regions_without_ignored_voxels() -> None:
    loss = loss_of_labels("recommended", has_regions=True, ignore_label=None)
    logits, target = torch.randn(2, 3, 6, 6), torch.randint(0, 2, (2, 3, 6, 6))
    torch.testing.assert_close(loss(logits, target), build_loss("recommended", activation="sigmoid")(logits, target))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("nacl", {"kernel_ops": "image_proportions_l1"}, "nnU-Net does not give"),
        ("logitnorm", {"has_regions": True}, "cannot be had of channels"),
        ("nalc", {}, "Unknown loss 'nalc'"),
    ],
)
def test_what_nnunet_cannot_train_with_is_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss_of_labels(name, **{"has_regions": False, "ignore_label": None, **arguments})


def test_the_folder_is_printed_where_nnunet_is(tmp_path) -> None:
    command = [sys.executable, "-m", "monai_calib.nnunet"]
    (tmp_path / "nnunetv2").mkdir()
    (tmp_path / "nnunetv2" / "__init__.py").touch()
    code = "import sys; sys.path.insert(0, sys.argv[1]); from monai_calib.nnunet.__main__ import main; sys.exit(main())"
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert found.stdout.splitlines() == [str(TRAINERS)]
    assert [path.stem for path in TRAINERS.glob("*.py") if path.stem != "__init__"] == ["monai_calib_trainers"]
    if not subprocess.run([sys.executable, "-c", "import nnunetv2"], capture_output=True).returncode:
        pytest.skip("nnunetv2 is installed here")
    missing = subprocess.run(command, capture_output=True, text=True)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "Install monai_calib where nnU-Net is" in missing.stderr
