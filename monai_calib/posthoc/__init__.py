"""Calibration after training: fitted on validation data by streaming, folded into the network or kept as its head."""

from monai_calib.posthoc.auto import Candidate, Choice, RefusedCorrectionError, choose, default_candidates
from monai_calib.posthoc.base import Calibrator, CalibratorWarning, FitRecord, fit
from monai_calib.posthoc.before_after import evaluate_corrections
from monai_calib.posthoc.boundary import BoundaryTemperature
from monai_calib.posthoc.boundary_vector import BoundaryVector
from monai_calib.posthoc.calibration import Calibrated, calibrate
from monai_calib.posthoc.conformal import ConformalThreshold, FalseNegativeControl, conformal_threshold
from monai_calib.posthoc.export import CalibratedNetwork, export_onnx, export_program, export_torchscript
from monai_calib.posthoc.federated import answer, fit_federated, question
from monai_calib.posthoc.files import calibrated_model, correction_record, posthoc_settings
from monai_calib.posthoc.folding import FoldingError, find_last_convolution, fold
from monai_calib.posthoc.isotonic import HistogramBinning, IsotonicRegression
from monai_calib.posthoc.kept import KeptCases
from monai_calib.posthoc.linear import LinearHead
from monai_calib.posthoc.local import LocalTemperature
from monai_calib.posthoc.methods import METHODS, build_calibrator
from monai_calib.posthoc.none import NoCorrection
from monai_calib.posthoc.sigmoid import PerChannel, SigmoidStream
from monai_calib.posthoc.stream import LogitCase, LogitStream
from monai_calib.posthoc.temperature import TemperatureScaling
from monai_calib.posthoc.vector import ClasswiseTemperature, DirichletScaling, MatrixScaling, VectorScaling

__all__ = [
    "METHODS",
    "BoundaryTemperature",
    "BoundaryVector",
    "Calibrated",
    "CalibratedNetwork",
    "Calibrator",
    "CalibratorWarning",
    "Candidate",
    "Choice",
    "ClasswiseTemperature",
    "ConformalThreshold",
    "DirichletScaling",
    "FalseNegativeControl",
    "FitRecord",
    "FoldingError",
    "HistogramBinning",
    "IsotonicRegression",
    "KeptCases",
    "LinearHead",
    "LocalTemperature",
    "LogitCase",
    "LogitStream",
    "MatrixScaling",
    "NoCorrection",
    "PerChannel",
    "RefusedCorrectionError",
    "SigmoidStream",
    "TemperatureScaling",
    "VectorScaling",
    "answer",
    "build_calibrator",
    "calibrate",
    "calibrated_model",
    "choose",
    "conformal_threshold",
    "correction_record",
    "default_candidates",
    "evaluate_corrections",
    "export_onnx",
    "export_program",
    "export_torchscript",
    "find_last_convolution",
    "fit",
    "fit_federated",
    "fold",
    "posthoc_settings",
    "question",
]


def __getattr__(name: str) -> object:
    if name in ("Comparison", "compare"):
        raise ImportError(
            f"monai_calib.posthoc.{name} went with 0.2: evaluate_corrections writes evaluated folders, which "
            "monai_calib.report.load and python -m monai_calib report read."
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
