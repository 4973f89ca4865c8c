"""Networks over patches in training and over volumes in use, with a say in precision and in what is averaged."""

from monai_calib.inferers.sliding_window import ProbabilitySlidingWindowInferer
from monai_calib.inferers.training import TrainingInferer

__all__ = ["ProbabilitySlidingWindowInferer", "TrainingInferer"]
