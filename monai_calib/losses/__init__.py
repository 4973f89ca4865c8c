"""Calibration losses: a primary objective plus a weighted penalty on the logits."""

from .base import ConstrainedLoss
from .cross_entropy import CrossEntropyLoss
from .entropy import ECPLoss
from .focal import FocalLoss
from .margin import MbLSLoss
from .nacl import NACLLoss
from .neighborhood import label_proportions, outer_voxels
from .presets import PRESETS, build_loss
from .smoothing import LabelSmoothingLoss, SVLSLoss

__all__ = [
    "PRESETS",
    "ConstrainedLoss",
    "CrossEntropyLoss",
    "ECPLoss",
    "FocalLoss",
    "LabelSmoothingLoss",
    "MbLSLoss",
    "NACLLoss",
    "SVLSLoss",
    "build_loss",
    "label_proportions",
    "outer_voxels",
]
