"""Inference over volumes, with a say in what is averaged where windows overlap."""

from monai_calib.inferers.sliding_window import ProbabilitySlidingWindowInferer

__all__ = ["ProbabilitySlidingWindowInferer"]
