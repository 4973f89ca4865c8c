"""Cases and data sets: their list, names, places and labels checked in one place; conversion of official downloads."""

from .datalist import has_raters, load_datalist, share_of_rank

__all__ = ["has_raters", "load_datalist", "share_of_rank"]
