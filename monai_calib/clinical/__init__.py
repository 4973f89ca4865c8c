"""Statements about a case that a clinician can use: volumes with intervals, expected overlap, thresholds, a flag."""

from .conformal_volumes import ConformalVolumeFit, ConformalVolumeModel
from .false_negatives import ConformalThreshold, FalseNegativeControl, TooFewSubjectsWarning, conformal_threshold
from .overlap import expected_dice
from .quality import reasons_to_check
from .volumes import VolumeEstimate, VolumeFit, VolumeModel, expected_volume, volume_deviation, volume_error

__all__ = [
    "ConformalThreshold",
    "ConformalVolumeFit",
    "ConformalVolumeModel",
    "FalseNegativeControl",
    "TooFewSubjectsWarning",
    "VolumeEstimate",
    "VolumeFit",
    "VolumeModel",
    "conformal_threshold",
    "expected_dice",
    "expected_volume",
    "reasons_to_check",
    "volume_deviation",
    "volume_error",
]
