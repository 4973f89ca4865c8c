"""The command line that all the scripts share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from monai_calib.arguments import Parser
from monai_calib.progress import with_progress
from monai_calib.terminal import bold, fail, warned
from monai_calib.words import counted

from .checksums import check_conversion
from .convert import convert
from .dataset import Dataset, SourceError
from .download import download_decathlon

__all__ = ["run"]


def _parser(dataset: Dataset) -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{dataset.key}.py",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"{dataset.title}: {dataset.description}\n\n"
        f"Licence: {dataset.licence}\nOfficial layout: {dataset.layout}",
        epilog="example:\n"
        f"  python data_scripts/{dataset.key}.py DOWNLOAD data/{dataset.key}\n"
        f"  python data_scripts/{dataset.key}.py --check data/{dataset.key}",
    )
    parser.add_argument("source", type=Path, nargs="?", metavar="SOURCE", help="official download: folder or archive")
    parser.add_argument("output", type=Path, nargs="?", metavar="OUT", help="new folder to write")
    parser.add_argument("--check", type=Path, metavar="OUT", help="verify an existing conversion, and nothing else")
    parser.add_argument("--seed", type=int, default=0, help="which split (default: %(default)s)")
    parser.add_argument(
        "--fractions",
        type=float,
        nargs=3,
        default=dataset.fractions,
        metavar=("TRAIN", "VAL", "TEST"),
        help=f"shares of the subjects (default: {' '.join(map(str, dataset.fractions))})",
    )
    parser.add_argument("--exclude", nargs="+", default=[], metavar="CASE", help="cases to leave out, by name")
    if dataset.archive:
        parser.add_argument("--download", action="store_true", help="first fetch the official archive to SOURCE")
    return parser


def run(dataset: Dataset, arguments: Sequence[str] | None = None) -> int:
    """Convert or check as the arguments say; returns 0, or 1 after telling what is wrong."""
    parser = _parser(dataset)
    given = parser.parse_args(arguments)
    try:
        if given.check:
            count, problems = check_conversion(given.check, dataset.title)
            print("\n".join(problems) if problems else f"{given.check}: {counted(count, 'case')}, all as written.")
            return 1 if problems else 0
        if given.output is None:
            parser.error("give SOURCE and OUT, or --check OUT")
        if dataset.archive and given.download:
            download_decathlon(dataset.archive, given.source)
        split = (given.seed, given.fractions, given.exclude)
        print(warned(convert(dataset, given.source, given.output, *split, with_progress)))
        print(f"Wrote {bold(given.output.absolute() / 'datalist.json')}")
        print(f"Next: look at {given.output / 'contact_sheet.png'}; then python -m monai_calib run {given.output} RUN")
    except (SourceError, OSError, ValueError) as error:
        fail(parser.prog, error)
        return 1
    except KeyboardInterrupt:
        fail(f"\n{parser.prog}", "interrupted; the same command goes on where it stopped.")
        return 130
    return 0
