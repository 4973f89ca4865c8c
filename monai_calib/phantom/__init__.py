"""A synthetic data set with a known label posterior, so that the true calibration of a network can be computed."""
