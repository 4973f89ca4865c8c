"""Calibration measured exactly: one histogram a volume, and cheap functions of it."""

from monai_calib.metrics.errors import classwise_ece, classwise_ece_per_class, ece
from monai_calib.metrics.histogram import Bins, CalibrationHistogram

__all__ = ["Bins", "CalibrationHistogram", "classwise_ece", "classwise_ece_per_class", "ece"]
