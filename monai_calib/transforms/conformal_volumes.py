"""Names of 0.1.0; the place is :mod:`monai_calib.clinical`."""

from monai_calib.clinical.conformal_volumes import ConformalVolumeFit, ConformalVolumeModel

__all__ = ["ConformalVolumeFit", "ConformalVolumeModel"]
