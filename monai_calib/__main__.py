"""The command line: ``python -m monai_calib COMMAND ...``.

Every package brings its commands in a file ``cli.py``, which is imported when its command is called: the help alone
needs neither PyTorch nor an extra.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from .arguments import Parser
from .terminal import colour_warnings, fail
from .version import __version__

COMMANDS = {
    "prepare": ("datasets", "make a data set of your own images and labels"),
    "bundle": ("bundling", "write a bundle for a data set: fingerprint and plan, with a reason for each number"),
    "pack": ("bundling", "pack bundles as zips, alone or with a run's weights and their metrics"),
    "run": ("experiments", "plan, train, calibrate, evaluate, export and report on a data set, in one go"),
    "phantom": ("datasets", "write a synthetic data set whose label posterior is known"),
    "benchmark": ("experiments", "train and compare losses over seeds, networks and bundles"),
    "measure": ("predictions", "measure stored probability maps of any framework"),
    "correct": ("predictions", "fit a correction to stored maps, and write corrected ones"),
    "report": ("report", "write one HTML page on evaluated runs"),
    "dicom": ("dicom", "read a DICOM series, write predictions as DICOM SEG or Parametric Map"),
}
"""Name of a command: the package that brings it, and what it does."""
RESUMED = {"benchmark", "prepare", "run"}  # the others write all or nothing

_EXAMPLE = """\
example:
  python -m monai_calib phantom data/phantom
  python -m monai_calib COMMAND --help

exit status: 0 done, 1 something failed and the last line says what, 2 the call was not understood, 130 interrupted
"""


def build_parser(command: str = "") -> argparse.ArgumentParser:
    """Return the parser, with the arguments of one command and the names of the others."""
    parser = Parser(
        prog="monai_calib",
        description="Calibrated medical image segmentation.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    wanted = COMMANDS.get(command, ("",))[0]
    if wanted:
        # By its file: the package around it may need PyTorch, or an extra, for which a help does not wait.
        file = Path(__file__).with_name(wanted) / "cli.py"
        spec = importlib.util.spec_from_file_location(f"{__package__}.{wanted}.cli", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.add_commands(commands)
    for name, (package, help_text) in COMMANDS.items():
        if package != wanted:
            commands.add_parser(name, help=help_text)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0; 1 for what the user can mend, 2 for a call that is not understood, 130 when interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    colour_warnings()
    try:
        chosen = build_parser(given[0] if given else "").parse_args(given)
        chosen.run(chosen)
    except (argparse.ArgumentTypeError, OSError, ValueError, ModuleNotFoundError) as error:
        fail("monai_calib", error)
        return 2 if isinstance(error, argparse.ArgumentTypeError) else 1
    except KeyboardInterrupt:
        resumes = "; the same command goes on where it stopped" if given[0] in RESUMED else ""
        fail("monai_calib", f"interrupted{resumes}")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
