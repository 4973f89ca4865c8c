"""Trainers to name on nnU-Net's command line: ``nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerCalibrated``.

Each is nnU-Net's own trainer with another loss. A trainer of your own is three lines, in a folder of yours that
``nnUNet_extTrainer`` names too::

    from monai_calib.nnunet.loss import CalibratedLoss
    class nnUNetTrainerMine(CalibratedLoss, nnUNetTrainer):
        loss_name, loss_arguments = "dice_ce+mbls", {"margin": 3, "alpha": 0.2}
"""

from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from monai_calib.nnunet.loss import CalibratedLoss

__all__ = ["nnUNetTrainerCalibrated", "nnUNetTrainerMbLS", "nnUNetTrainerNACL"]


class nnUNetTrainerCalibrated(CalibratedLoss, nnUNetTrainer):  # noqa: N801
    """Dice + cross-entropy and NACL where labels meet: the loss ``recommended``."""

    loss_name = "recommended"


class nnUNetTrainerMbLS(CalibratedLoss, nnUNetTrainer):  # noqa: N801
    """Dice + cross-entropy with margin-based label smoothing, at the margin of the authors' segmentation runs."""

    loss_name = "dice_ce+mbls"
    loss_arguments = {"margin": 5.0}  # noqa: RUF012


class nnUNetTrainerNACL(CalibratedLoss, nnUNetTrainer):  # noqa: N801
    """Dice + cross-entropy with NACL everywhere."""

    loss_name = "dice_ce+nacl"
