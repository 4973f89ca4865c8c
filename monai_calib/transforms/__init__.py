"""MONAI transforms for calibrated segmentation."""

from .loading import LoadCased

__all__ = ["LoadCased"]
