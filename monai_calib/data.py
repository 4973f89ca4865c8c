"""The list of cases under its name of 0.1.0; see :mod:`monai_calib.datasets.datalist`."""

from .datasets.datalist import load_datalist, share_of_rank

__all__ = ["load_datalist", "share_of_rank"]
