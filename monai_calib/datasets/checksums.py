"""SHA-256 sums of files, and the check of a finished conversion against the sums in its datalist.json."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from .datalist import SPLITS, read_datalist
from .dataset import SourceError

__all__ = ["check_conversion", "files_of", "sha256"]


def sha256(*paths: Path) -> str:
    """Hexadecimal digest of the content of one or more files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def files_of(entry: Mapping[str, Any], folder: Path) -> list[tuple[Path, str]]:
    """The files of an entry of the datalist, each with the checksum it should have.

    An item (image, label) is one file or a list of them, and so are its checksums.
    """
    pairs = []
    for kind, sums in entry["sha256"].items():
        named = entry[kind]
        both = zip(named, sums, strict=True) if isinstance(named, list) else [(named, sums)]
        pairs += [(folder / name, digest) for name, digest in both]
    return pairs


def check_conversion(folder: Path, title: str | None = None) -> tuple[int, list[str]]:
    """Compare every file named in ``folder/datalist.json`` with its checksum, and the splits with each other.

    Args:
        folder: what a script wrote.
        title: name of the data set that it should hold; any by default.

    Returns:
        The number of cases, and a sentence for each problem: a file missing or changed, a subject in two splits.

    Raises: :class:`SourceError` if there is no readable datalist, or it is another data set's.
    """
    path = folder / "datalist.json"
    try:
        datalist = read_datalist(path)
        lists = {split: datalist[split] for split in SPLITS}
        files = [
            (entry["case"], *pair) for cases in lists.values() for entry in cases for pair in files_of(entry, folder)
        ]
        subjects = {split: {entry["subject"] for entry in cases} for split, cases in lists.items()}
    except Exception as error:  # whatever is in the file
        raise SourceError(f"{path}: not the datalist of a conversion ({type(error).__name__}: {error}).") from error
    if title is not None and datalist.get("name") != title:
        raise SourceError(f"{path}: expected the conversion of {title}, found that of {datalist.get('name')!r}.")
    problems = []
    for case, file, expected in files:
        if not file.is_file():
            problems.append(f"{case}: {file} is missing")
        elif sha256(file) != expected:
            problems.append(f"{case}: {file} is not the file that was written (its SHA-256 differs)")
    for first, second in combinations(SPLITS, 2):
        shared = sorted(subjects[first] & subjects[second])
        if shared:
            problems.append(f"subject {', '.join(shared[:5])} is in {first} and in {second}")
    return sum(map(len, lists.values())), problems
