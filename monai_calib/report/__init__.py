"""The report on evaluated runs, and the page on a calibration: statistics, tables, figures, self-contained HTML."""

from .before_after import calibration_page
from .html import write_report

__all__ = ["calibration_page", "write_report"]
