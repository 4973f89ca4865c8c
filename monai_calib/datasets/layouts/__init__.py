"""Layouts in which people keep images and labels: Decathlon, nnU-Net, folders, a table; recognised, not declared."""

from .layout import Found
from .recognise import recognise

__all__ = ["Found", "recognise"]
