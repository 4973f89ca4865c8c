"""Statements about a case that a clinician can use: volumes with intervals, expected overlap, thresholds, a flag."""

from .confidence import certainty, confidence_scores, pairwise_dice
from .conformal_volumes import ConformalVolumeFit, ConformalVolumeModel
from .failure import FailureDetection, RiskCoverage, failure_detection, risk_coverage
from .false_negatives import ConformalThreshold, FalseNegativeControl, TooFewSubjectsWarning, conformal_threshold
from .overlap import expected_dice
from .quality import QualityThreshold, least_dice, reasons_to_check
from .volumes import VolumeEstimate, VolumeFit, VolumeModel, expected_volume, volume_deviation, volume_error

__all__ = [
    "ConformalThreshold",
    "ConformalVolumeFit",
    "ConformalVolumeModel",
    "FailureDetection",
    "FalseNegativeControl",
    "QualityThreshold",
    "RiskCoverage",
    "TooFewSubjectsWarning",
    "VolumeEstimate",
    "VolumeFit",
    "VolumeModel",
    "certainty",
    "confidence_scores",
    "conformal_threshold",
    "expected_dice",
    "expected_volume",
    "failure_detection",
    "least_dice",
    "pairwise_dice",
    "reasons_to_check",
    "risk_coverage",
    "volume_deviation",
    "volume_error",
]
