"""Calibration losses: a primary objective plus a weighted penalty on the logits."""

from .acls import ACLSLoss
from .adaptive import CALSLoss, CRaCLoss
from .base import ConstrainedLoss
from .binned import HardL1ACELoss, SoftL1ACELoss
from .cross_entropy import CrossEntropyLoss
from .dice import DiceSemimetricLoss, DSCPlusPlusLoss
from .entropy import ECPLoss
from .erroneous import MEEPLoss
from .focal import FLSDLoss, FocalLoss
from .frequency import MDCALoss
from .logit_norm import LogitNormLoss
from .margin import MbLSLoss
from .nacl import NACLLoss
from .neighborhood import label_proportions, outer_voxels
from .presets import PRESETS, build_loss
from .smoothing import LabelSmoothingLoss, SVLSLoss

__all__ = [
    "PRESETS",
    "ACLSLoss",
    "CALSLoss",
    "CRaCLoss",
    "ConstrainedLoss",
    "CrossEntropyLoss",
    "DSCPlusPlusLoss",
    "DiceSemimetricLoss",
    "ECPLoss",
    "FLSDLoss",
    "FocalLoss",
    "HardL1ACELoss",
    "LabelSmoothingLoss",
    "LogitNormLoss",
    "MDCALoss",
    "MEEPLoss",
    "MbLSLoss",
    "NACLLoss",
    "SVLSLoss",
    "SoftL1ACELoss",
    "build_loss",
    "label_proportions",
    "outer_voxels",
]
