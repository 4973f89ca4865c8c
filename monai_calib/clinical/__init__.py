"""Statements about a case that a clinician can use: volumes with intervals, margins, sets, expected overlap, a flag."""

from .case_model import CaseStatement, ClinicalModel, StructureStatement, read_clinical_model, write_clinical_model
from .confidence import certainty, confidence_scores, pairwise_dice
from .conformal import Conformal, TooFewSubjectsWarning, conformal_from_json, fewest_subjects, subject_quantile
from .conformal_volumes import ConformalVolumeFit, ConformalVolumeModel
from .failure import FailureDetection, RiskCoverage, failure_detection, risk_coverage
from .false_negatives import ConformalThreshold, FalseNegativeControl, conformal_threshold
from .inputs import ImageCheck, InputCheck, image_statistics
from .margins import ConformalMargin, Margin
from .overlap import expected_dice
from .quality import QualityThreshold, least_dice, reasons_to_check
from .volumes import VolumeEstimate, VolumeFit, VolumeModel, expected_volume, volume_deviation, volume_error
from .voxel_sets import ConformalSets, SetThreshold

__all__ = [
    "CaseStatement",
    "ClinicalModel",
    "Conformal",
    "ConformalMargin",
    "ConformalSets",
    "ConformalThreshold",
    "ConformalVolumeFit",
    "ConformalVolumeModel",
    "FailureDetection",
    "FalseNegativeControl",
    "ImageCheck",
    "InputCheck",
    "Margin",
    "QualityThreshold",
    "RiskCoverage",
    "SetThreshold",
    "StructureStatement",
    "TooFewSubjectsWarning",
    "VolumeEstimate",
    "VolumeFit",
    "VolumeModel",
    "certainty",
    "confidence_scores",
    "conformal_from_json",
    "conformal_threshold",
    "expected_dice",
    "expected_volume",
    "failure_detection",
    "fewest_subjects",
    "image_statistics",
    "least_dice",
    "pairwise_dice",
    "read_clinical_model",
    "reasons_to_check",
    "risk_coverage",
    "subject_quantile",
    "volume_deviation",
    "volume_error",
    "write_clinical_model",
]
