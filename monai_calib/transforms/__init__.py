"""MONAI transforms for calibrated segmentation."""

from monai_calib.clinical import ConformalVolumeFit, ConformalVolumeModel

from .loading import LoadCased
from .overlap import ExpectedDiced, expected_dice
from .quality import QualityFlagd
from .volumes import ExpectedVolumed, VolumeFit, VolumeModel, expected_volume

__all__ = [
    "ConformalVolumeFit",
    "ConformalVolumeModel",
    "ExpectedDiced",
    "ExpectedVolumed",
    "LoadCased",
    "QualityFlagd",
    "VolumeFit",
    "VolumeModel",
    "expected_dice",
    "expected_volume",
]
