"""Calibrated medical image segmentation with MONAI: losses, exact calibration metrics, reports."""

from .version import __version__

__all__ = ["__version__"]
