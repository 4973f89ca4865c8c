"""Networks over patches in training and over volumes in use, with a say in precision and in what is averaged."""

from monai_calib.inferers.averaging import AveragingInferer, log_mean_probability
from monai_calib.inferers.dropout import MCDropoutInferer
from monai_calib.inferers.ensemble import EnsembleInferer, find_checkpoints
from monai_calib.inferers.flips import FlipInferer
from monai_calib.inferers.networks import AveragedNetwork, DropoutNetwork, EnsembleNetwork, FlipNetwork
from monai_calib.inferers.sliding_window import ProbabilitySlidingWindowInferer
from monai_calib.inferers.training import ImageForLoss, LossOfHeads, TrainingInferer, bfloat16_autocast
from monai_calib.inferers.uncertainty import UncertaintyMaps, uncertainty_maps

__all__ = [
    "AveragedNetwork",
    "AveragingInferer",
    "DropoutNetwork",
    "EnsembleInferer",
    "EnsembleNetwork",
    "FlipInferer",
    "FlipNetwork",
    "ImageForLoss",
    "LossOfHeads",
    "MCDropoutInferer",
    "ProbabilitySlidingWindowInferer",
    "TrainingInferer",
    "UncertaintyMaps",
    "bfloat16_autocast",
    "find_checkpoints",
    "log_mean_probability",
    "uncertainty_maps",
]
