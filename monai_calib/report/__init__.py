"""The report on evaluated folders: statistics, tables, figures, self-contained HTML."""

from .case_page import ClinicalReportd
from .html import write_report
from .load import load

__all__ = ["ClinicalReportd", "load", "write_report"]


def __getattr__(name: str) -> object:
    if name == "calibration_page":
        raise ImportError(
            "monai_calib.report.calibration_page went with 0.2: calibrate writes evaluated folders, and "
            "python -m monai_calib report RUN shows them before and after."
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
