"""The synthetic data set under its name of 0.1.0; see :mod:`monai_calib.datasets.phantom`."""

from .datasets.phantom import (
    CLASS_NAMES,
    PhantomCase,
    load_posterior,
    phantom_case,
    posterior_distance,
    true_calibration_error,
    write_phantom,
)

__all__ = [
    "CLASS_NAMES",
    "PhantomCase",
    "load_posterior",
    "phantom_case",
    "posterior_distance",
    "true_calibration_error",
    "write_phantom",
]
