"""Converters of the data sets' official downloads into NIfTI files and a datalist.json, one script a data set."""
