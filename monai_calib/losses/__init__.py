"""Calibration losses: a primary objective plus a weighted penalty on the logits."""
