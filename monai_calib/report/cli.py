"""The command ``report``."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_calib.terminal import bold

__all__ = ["add_commands"]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "report",
        description="Write one self-contained HTML page that compares evaluated runs.",
        epilog="example: python -m monai_calib report runs/ce runs/nacl --output report.html",
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="folder that holds eval/calibration.json, or folders that do"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), help="page to write (default: %(default)s)"
    )
    parser.add_argument(
        "--published", type=Path, metavar="JSON", help="tables of other works to show apart (monai_calib/published/1)"
    )
    parser.add_argument(
        "--mlflow", metavar="URI", help="log the page to MLflow too, as sqlite:///RUN/mlruns.db or a server's address"
    )
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> None:
    from .html import write_report

    page = write_report(arguments.runs, arguments.output, arguments.published)
    print(f"Wrote {bold(page.absolute())}")
    if arguments.mlflow is not None:
        from .tracking import log_report

        print(f"Logged it to {arguments.mlflow} as run {log_report(arguments.mlflow, page, arguments.runs)}")
    print("Next: open it in a browser.")
