"""Ignite handlers that carry losses and metrics into MONAI's workflows."""
