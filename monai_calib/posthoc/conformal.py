"""Names of 0.1.0; the place is :mod:`monai_calib.clinical`."""

from monai_calib.clinical.false_negatives import ConformalThreshold, FalseNegativeControl, conformal_threshold

__all__ = ["ConformalThreshold", "FalseNegativeControl", "conformal_threshold"]
