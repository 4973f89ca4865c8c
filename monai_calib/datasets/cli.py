"""The commands ``phantom`` and ``prepare``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from monai_calib.arguments import truth, whole
from monai_calib.terminal import bold, warned
from monai_calib.words import counted

__all__ = ["add_commands"]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    _add_phantom(commands)
    _add_prepare(commands)


def _add_phantom(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "phantom",
        description="Write a SYNTHETIC data set in the Medical Segmentation Decathlon's layout.",
        epilog="example: python -m monai_calib phantom data/phantom --cases 40 --seed 0",
    )
    parser.add_argument("output", type=Path, metavar="OUT", help="new folder to write")
    parser.add_argument("--cases", type=whole(3), default=40, help="number of cases (default: %(default)s)")
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
    from monai_calib.progress import Progress

    from .phantom import write_phantom

    progress = Progress()
    datalist = write_phantom(
        arguments.output,
        arguments.cases,
        arguments.seed,
        progress,
        shape=arguments.shape,
        spacing=arguments.spacing,
        noise=arguments.noise,
        ambiguity=arguments.ambiguity,
    )
    progress.clear()
    print(f"Wrote {arguments.cases} SYNTHETIC cases (no patient data), seed {arguments.seed}: {bold(datalist)}")
    print(f"Next: python -m monai_calib run {arguments.output} RUN trains on it and reports.")


def _add_prepare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "prepare",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Make a data set that a bundle trains on from your own images and labels.\n"
        "Layouts: Medical Segmentation Decathlon, nnU-Net v2 raw, two folders matched by name, a CSV or JSON table.",
        epilog="example:\n"
        "  python -m monai_calib prepare pictures/images pictures/masks my/usgra --labels nerve=1 vessel=2 --block 8\n"
        "  python -m monai_calib prepare nnUNet_raw/Dataset501_Heart my/heart --patients '(patient\\d+)_'\n"
        "  python -m monai_calib prepare cells my/cells --raters 'raters/{rater}/{case}.png' --labels cell=1",
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder, or table of cases")
    parser.add_argument("labels_at", nargs="?", metavar="LABELS", help="folder, or pattern with {case}, of the labels")
    parser.add_argument("output", type=Path, metavar="OUT", help="new folder to write")
    parser.add_argument(
        "--labels", nargs="+", default=[], metavar="NAME=VALUE", help="classes by value or colour, as vessel='#800000'"
    )
    parser.add_argument(
        "--patients", metavar="REGEX|CSV", help="its first group, or the table's column, is the patient"
    )
    parser.add_argument("--block", type=whole(), metavar="N", help="N neighbouring numbers stay together")
    parser.add_argument("--test", type=Path, metavar="LIST", help="text file with the test cases, one a line")
    parser.add_argument(
        "--fractions",
        type=float,
        nargs=3,
        default=[0.7, 0.1, 0.2],
        metavar=("TRAIN", "VAL", "TEST"),
        help="shares of the subjects (default: 0.7 0.1 0.2)",
    )
    parser.add_argument("--folds", type=whole(2), metavar="K", help="cross-validation: a datalist for each fold too")
    parser.add_argument(
        "--unit", choices=("mm", "px"), help="px: pixel size unknown (default: px for pictures, else mm)"
    )
    parser.add_argument("--raters", metavar="PATTERN", help="labels of several raters, with {rater} and {case} in it")
    parser.add_argument("--exclude", nargs="+", default=[], metavar="CASE", help="cases to leave out, by name")
    parser.add_argument("--seed", type=int, default=0, help="which split (default: %(default)s)")
    parser.add_argument("--overwrite", type=truth, default=False, metavar="True", help="replace an earlier OUT")
    parser.add_argument("--check", action=_Check, metavar="OUT", help="compare a finished OUT with its checksums, only")
    parser.set_defaults(run=_prepare)


class _Check(argparse.Action):
    """Check a finished data set and end, as ``--version`` does: no other argument is needed."""

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        from .checksums import check_conversion
        from .dataset import name_problems

        count, problems = check_conversion(Path(given[1]))
        if problems:
            raise name_problems(problems, f"{given[1]}: {counted(len(problems), 'problem')}")
        print(f"{given[1]}: {counted(count, 'case')}, all as written.")
        parser.exit()


def _prepare(arguments: argparse.Namespace) -> None:
    from monai_calib.progress import with_progress

    from .prepare import prepare

    options = (
        *("labels", "patients", "block", "test", "fractions", "folds", "unit", "raters", "exclude", "seed"),
        "overwrite",
    )
    summary = prepare(
        arguments.source,
        arguments.output,
        arguments.labels_at,
        progress=with_progress,
        **{name: getattr(arguments, name) for name in options},
    )
    print(warned(summary))
    print(f"Wrote {bold(arguments.output.absolute() / 'datalist.json')}")
    print(
        f"Next: look at {arguments.output / 'contact_sheet.png'}; then python -m monai_calib run {arguments.output} RUN"
    )
