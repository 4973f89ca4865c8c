"""Files that are no tests."""

collect_ignore = ["nnunet_export.py"]  # run by nnU-Net's Python
