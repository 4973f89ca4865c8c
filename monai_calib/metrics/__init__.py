"""Calibration measured exactly: one histogram a volume, and cheap functions of it."""

from monai_calib.metrics.bootstrap import (
    Interval,
    Intervals,
    bootstrap_difference,
    bootstrap_interval,
    bootstrap_mean,
    bootstrap_reliability,
)
from monai_calib.metrics.classwise import class_mean, classwise_ece, classwise_ece_per_class
from monai_calib.metrics.errors import (
    ace,
    adaptive_ece,
    debiased_ece,
    ece,
    ks_error,
    mce,
    over_confidence,
    penalised_ece,
    rmsce,
    under_confidence,
)
from monai_calib.metrics.evaluated import Evaluated, EvaluatedCase, read_evaluated
from monai_calib.metrics.evaluated_writer import EvaluatedWriter
from monai_calib.metrics.evaluation import CaseEvaluation
from monai_calib.metrics.federation import write_federation
from monai_calib.metrics.filtered import FilteredOverlap, filtered_overlap, filtered_overlap_of_histogram
from monai_calib.metrics.histogram import Bins, CalibrationHistogram
from monai_calib.metrics.metric import Metric
from monai_calib.metrics.protocols import PROTOCOLS, Protocol
from monai_calib.metrics.regions import Region, region_mask
from monai_calib.metrics.reliability import ReliabilityCurve, reliability_curve, wilson_interval
from monai_calib.metrics.scores import BrierDecomposition, brier, brier_decomposition, nll, root_brier, sharpness
from monai_calib.metrics.selective import Bounded, augrc, aurc, excess_aurc
from monai_calib.metrics.smooth import mmce, smooth_ece

__all__ = [
    "PROTOCOLS",
    "Bins",
    "Bounded",
    "BrierDecomposition",
    "CalibrationHistogram",
    "CaseEvaluation",
    "Evaluated",
    "EvaluatedCase",
    "EvaluatedWriter",
    "FilteredOverlap",
    "Interval",
    "Intervals",
    "Metric",
    "Protocol",
    "Region",
    "ReliabilityCurve",
    "ace",
    "adaptive_ece",
    "augrc",
    "aurc",
    "bootstrap_difference",
    "bootstrap_interval",
    "bootstrap_mean",
    "bootstrap_reliability",
    "brier",
    "brier_decomposition",
    "class_mean",
    "classwise_ece",
    "classwise_ece_per_class",
    "debiased_ece",
    "ece",
    "excess_aurc",
    "filtered_overlap",
    "filtered_overlap_of_histogram",
    "ks_error",
    "mce",
    "mmce",
    "nll",
    "over_confidence",
    "penalised_ece",
    "read_evaluated",
    "region_mask",
    "reliability_curve",
    "rmsce",
    "root_brier",
    "sharpness",
    "smooth_ece",
    "under_confidence",
    "wilson_interval",
    "write_federation",
]
