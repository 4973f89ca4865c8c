"""Statements about one case that a clinician can use: volumes with intervals, thresholds, expected overlap."""
