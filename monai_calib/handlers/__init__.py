"""Ignite handlers that carry losses and metrics into MONAI's workflows."""

from .calibration import CalibrationHandler
from .case_metric import lower_is_better
from .checkpoint import TrainingCheckpoint
from .composites import BRATS_COMPOSITES, CompositeHandler
from .consistency import BoundaryConsistency
from .evaluated_folder import EvaluatedFolder
from .guard import NonFiniteGuard
from .multipliers import MultiplierHandler
from .preview import SlicePreviewHandler
from .progress import EpochProgress
from .reliability import ReliabilityDiagramHandler
from .schedule import AlphaSchedule
from .surface import SurfaceHandler

__all__ = [
    "BRATS_COMPOSITES",
    "AlphaSchedule",
    "BoundaryConsistency",
    "CalibrationHandler",
    "CompositeHandler",
    "EpochProgress",
    "EvaluatedFolder",
    "MultiplierHandler",
    "NonFiniteGuard",
    "ReliabilityDiagramHandler",
    "SlicePreviewHandler",
    "SurfaceHandler",
    "TrainingCheckpoint",
    "lower_is_better",
]
