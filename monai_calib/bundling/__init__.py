"""Check the options of a bundle and keep what its configurations need besides losses, metrics and handlers."""

from monai_calib.bundling.options import OptionError, check_options

__all__ = ["OptionError", "check_options"]
