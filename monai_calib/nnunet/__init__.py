"""nnU-Net trainers with calibration losses, for its command line.

``export nnUNet_extTrainer=$(python -m monai_calib.nnunet)``, then ``nnUNetv2_train DATASET 3d_fullres 0 -tr
nnUNetTrainerCalibrated``. Nothing here imports nnU-Net but :mod:`.trainers`, where nnU-Net itself looks.
"""

from pathlib import Path

__all__ = ["TRAINERS"]

TRAINERS = Path(__file__).with_name("trainers")
"""Folder in which nnU-Net looks for trainers, named by its environment variable ``nnUNet_extTrainer``."""
