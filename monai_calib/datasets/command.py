"""The command line that all the scripts share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from .checksums import check_conversion
from .convert import convert
from .dataset import Case, Dataset, SourceError
from .download import download_decathlon

__all__ = ["run", "with_progress"]


def _parser(dataset: Dataset) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{dataset.key}.py",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"{dataset.title}: {dataset.description}\n\n"
        f"Licence: {dataset.licence}\nOfficial layout: {dataset.layout}",
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


def with_progress(cases: Sequence[Case]) -> Iterable[Case]:
    """The cases, one after the other, with a bar or a line for each on the error stream."""
    try:
        from tqdm import tqdm
    except ImportError:
        return (_announced(case, number, len(cases)) for number, case in enumerate(cases, 1))
    return tqdm(cases, unit="case", file=sys.stderr)


def _announced(case: Case, number: int, total: int) -> Case:
    print(f"{number}/{total} {case.name}", file=sys.stderr)
    return case


def run(dataset: Dataset, arguments: Sequence[str] | None = None) -> int:
    """Convert or check as the arguments say; returns 0, or 1 after telling what is wrong."""
    parser = _parser(dataset)
    given = parser.parse_args(arguments)
    try:
        if given.check:
            count, problems = check_conversion(given.check, dataset.title)
            print("\n".join(problems) if problems else f"{given.check}: all {count} cases are as they were written.")
            return 1 if problems else 0
        if given.output is None:
            parser.error("give SOURCE and OUT, or --check OUT")
        if dataset.archive and given.download:
            download_decathlon(dataset.archive, given.source)
        print(convert(dataset, given.source, given.output, given.seed, given.fractions, given.exclude, with_progress))
        print(f"Wrote {given.output.absolute() / 'datalist.json'}")
    except (SourceError, OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{parser.prog}: interrupted; the same command goes on where it stopped.", file=sys.stderr)
        return 130
    return 0
