"""Calibration losses: a primary objective plus a weighted penalty on the logits."""

from .acls import ACLSLoss
from .base import ConstrainedLoss
from .cals import CALSLoss
from .crac import CRaCLoss
from .cross_entropy import CrossEntropyLoss
from .dice_plus_plus import DSCPlusPlusLoss
from .dice_semimetric import DiceSemimetricLoss
from .ecp import ECPLoss
from .flsd import FLSDLoss
from .focal import FocalLoss
from .l1ace import HardL1ACELoss, SoftL1ACELoss
from .label_smoothing import LabelSmoothingLoss
from .logit_norm import LogitNormLoss
from .mbls import MbLSLoss
from .mdca import MDCALoss
from .meep import MEEPLoss
from .nacl import NACLLoss
from .neighborhood import label_proportions, outer_voxels
from .presets import PRESETS, build_loss
from .sigmoid import SigmoidLoss
from .soft_dice import fade_dice
from .svls import SVLSLoss

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
    "SigmoidLoss",
    "SoftL1ACELoss",
    "build_loss",
    "fade_dice",
    "label_proportions",
    "outer_voxels",
]
