"""MONAI transforms for calibrated segmentation."""

from monai_calib.clinical import ConformalVolumeFit, ConformalVolumeModel

from .loading import LoadCased
from .overlap import ExpectedDiced, expected_dice
from .quality import QualityFlagd
from .raters import KeepRatersd, MeanLabeld
from .volumes import ExpectedVolumed, VolumeFit, VolumeModel, expected_volume

__all__ = [
    "ConformalVolumeFit",
    "ConformalVolumeModel",
    "ExpectedDiced",
    "ExpectedVolumed",
    "KeepRatersd",
    "LoadCased",
    "MeanLabeld",
    "QualityFlagd",
    "VolumeFit",
    "VolumeModel",
    "expected_dice",
    "expected_volume",
]
