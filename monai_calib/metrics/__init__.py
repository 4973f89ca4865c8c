"""Calibration measured exactly: one histogram a volume, and cheap functions of it."""
