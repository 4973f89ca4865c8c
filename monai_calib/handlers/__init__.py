"""Ignite handlers that carry losses and metrics into MONAI's workflows."""

from .calibration import CalibrationHandler
from .case_metric import lower_is_better
from .checkpoint import TrainingCheckpoint
from .composites import BRATS_COMPOSITES, CompositeHandler
from .consistency import BoundaryConsistency
from .evaluated_folder import EvaluatedFolder
from .guard import NonFiniteGuard
from .ignored import without_ignored
from .multipliers import MultiplierHandler
from .preview import SlicePreviewHandler
from .progress import EpochProgress
from .reliability import ReliabilityDiagramHandler
from .schedule import AlphaSchedule, FadingDice
from .seeds import EpochSeeds
from .snapshots import SnapshotHandler
from .surface import SurfaceHandler
from .tracking import TrackedRun
from .weights import CheckpointLoader

__all__ = [
    "BRATS_COMPOSITES",
    "AlphaSchedule",
    "BoundaryConsistency",
    "CalibrationHandler",
    "CheckpointLoader",
    "CompositeHandler",
    "EpochProgress",
    "EpochSeeds",
    "EvaluatedFolder",
    "FadingDice",
    "MultiplierHandler",
    "NonFiniteGuard",
    "ReliabilityDiagramHandler",
    "SlicePreviewHandler",
    "SnapshotHandler",
    "SurfaceHandler",
    "TrackedRun",
    "TrainingCheckpoint",
    "lower_is_better",
    "without_ignored",
]
