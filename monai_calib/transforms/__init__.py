"""MONAI transforms for calibrated segmentation."""

from monai_calib.clinical import ConformalVolumeFit, ConformalVolumeModel

from .clinical import Clinicald, FitClinicald, ImageStatisticsd
from .loading import LoadCased
from .overlap import ExpectedDiced, expected_dice
from .posterior import LoadPosteriord
from .quality import QualityFlagd
from .raters import KeepRatersd, MeanLabeld
from .volumes import ExpectedVolumed, VolumeFit, VolumeModel, expected_volume

__all__ = [
    "Clinicald",
    "ConformalVolumeFit",
    "ConformalVolumeModel",
    "ExpectedDiced",
    "ExpectedVolumed",
    "FitClinicald",
    "ImageStatisticsd",
    "KeepRatersd",
    "LoadCased",
    "LoadPosteriord",
    "MeanLabeld",
    "QualityFlagd",
    "VolumeFit",
    "VolumeModel",
    "expected_dice",
    "expected_volume",
]
