"""The command line: ``python -m monai_calib {phantom,report} ...``; what a command needs is imported when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .version import __version__


def _add_phantom(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "phantom",
        help="write a synthetic data set whose label posterior is known",
        description="Write a SYNTHETIC data set in the Medical Segmentation Decathlon's layout; see docs/phantom.md.",
    )
    parser.add_argument("output", type=Path, metavar="OUT", help="new folder to write")
    parser.add_argument("--cases", type=int, default=40, help="number of cases (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which population (default: %(default)s)")
    parser.add_argument(
        "--shape", type=int, nargs=3, default=[36, 50, 36], metavar="N", help="voxels per axis (default: 36 50 36)"
    )
    parser.add_argument(
        "--spacing", type=float, nargs=3, default=[1.0, 1.0, 1.0], metavar="MM", help="voxel size (default: 1 1 1)"
    )
    parser.add_argument("--noise", type=float, default=0.08, help="noise, relative to tissue (default: %(default)s)")
    parser.add_argument(
        "--ambiguity", type=float, default=0.2, metavar="MM", help="softness of the boundary (default: %(default)s)"
    )
    parser.set_defaults(run=_phantom)


def _phantom(arguments: argparse.Namespace) -> None:
    from .phantom import write_phantom

    datalist = write_phantom(
        arguments.output,
        arguments.cases,
        arguments.seed,
        shape=arguments.shape,
        spacing=arguments.spacing,
        noise=arguments.noise,
        ambiguity=arguments.ambiguity,
    )
    print(f"Wrote {arguments.cases} SYNTHETIC cases (no patient data), seed {arguments.seed}: {datalist}")


def _add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "report",
        help="write one HTML page on evaluated runs",
        description="Write one self-contained HTML page that compares evaluated runs.",
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="run folder, one that holds eval/calibration.json"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), help="page to write (default: %(default)s)"
    )
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> None:
    from .report.html import write_report

    print(f"Wrote {write_report(arguments.runs, arguments.output).absolute()}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 for what the user can mend, 2 for arguments not understood."""
    parser = argparse.ArgumentParser(prog="monai_calib", description="Calibrated medical image segmentation.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_phantom(commands)
    _add_report(commands)
    chosen = parser.parse_args(arguments)
    try:
        chosen.run(chosen)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"monai_calib: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
