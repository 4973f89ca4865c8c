"""A synthetic data set with a known label posterior, so that the true calibration of a network can be computed."""

from .calibration import load_posterior, posterior_distance, true_calibration_error
from .dataset import CLASS_NAMES, PhantomCase, phantom_case, write_phantom

__all__ = [
    "CLASS_NAMES",
    "PhantomCase",
    "load_posterior",
    "phantom_case",
    "posterior_distance",
    "true_calibration_error",
    "write_phantom",
]
