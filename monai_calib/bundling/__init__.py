"""What the configurations of a bundle need besides losses, metrics and handlers."""

from monai_calib.bundling.options import OptionError, check_options

__all__ = ["OptionError", "check_options"]
