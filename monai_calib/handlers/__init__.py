"""Ignite handlers that carry losses and metrics into MONAI's workflows."""

from .guard import NonFiniteGuard
from .schedule import AlphaSchedule

__all__ = ["AlphaSchedule", "NonFiniteGuard"]
