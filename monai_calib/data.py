"""The list of cases under its name of 0.1.0; see :mod:`monai_calib.datasets.datalist`."""

from .datasets.datalist import has_raters, load_datalist, share_of_rank

__all__ = ["has_raters", "load_datalist", "share_of_rank"]
