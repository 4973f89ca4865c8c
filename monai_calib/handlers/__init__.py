"""Ignite handlers that carry losses and metrics into MONAI's workflows."""

from .calibration import CalibrationHandler
from .case_metric import lower_is_better
from .checkpoint import TrainingCheckpoint
from .guard import NonFiniteGuard
from .progress import EpochProgress
from .schedule import AlphaSchedule
from .surface import SurfaceHandler

__all__ = [
    "AlphaSchedule",
    "CalibrationHandler",
    "EpochProgress",
    "NonFiniteGuard",
    "SurfaceHandler",
    "TrainingCheckpoint",
    "lower_is_better",
]
