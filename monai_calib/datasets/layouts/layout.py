"""Findings of a layout: cases, and what it says of channels, labels and splits; and the files that count as images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from ..archives import is_stray
from ..case import case_of_file, file_safe
from ..dataset import Case

__all__ = ["PICTURES", "VOLUMES", "Found", "files_below", "is_image", "is_picture", "kinds_differ", "read_names"]

VOLUMES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


@dataclass
class Found:
    """Findings of a layout.

    Attributes:
        layout: its name, for people.
        title: name of the data set.
        sources: folders that are only read, in which nothing may be written.
        cases: image and label of each; ``subject`` is empty where the layout does not tell it.
        channels: name of each channel; None where only the images tell how many there are.
        labels: values of each class by its name, background first; None where only the labels tell.
        ignore: the value that counts nowhere.
        regions: names of unions of values, as nnU-Net has them.
        split: name of the split of some or all cases, by case.
        description, licence: as the source says.
        problems: all that is wrong, a line each.
        notes: what to beware of, a line each.
    """

    layout: str
    title: str
    sources: tuple[Path, ...]
    cases: list[Case] = field(default_factory=list)
    channels: tuple[str, ...] | None = None
    labels: Mapping[str, Sequence[Any]] | None = None
    ignore: int | None = None
    regions: Mapping[str, Sequence[int]] = field(default_factory=dict)
    split: dict[str, str] = field(default_factory=dict)
    description: str = ""
    licence: str = ""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def is_picture(path: PurePath) -> bool:
    """Whether a file is a picture by its name: pixels without a place."""
    return path.name.lower().endswith(PICTURES)


def is_image(path: PurePath) -> bool:
    """Whether a file is a volume or a picture by its name."""
    return path.name.lower().endswith((*VOLUMES, *PICTURES))


def files_below(folder: Path) -> dict[str, list[Path]]:
    """The images in a folder and below, by their path in it without the extension."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if is_image(path) and not is_stray(below) and path.is_file():
            found.setdefault(below.with_name(case_of_file(below)).as_posix(), []).append(path)
    return found


def read_names(keys: Sequence[str]) -> dict[str, str]:
    """Names of cases by their keys, paths without an extension; folders stay in the name, for they may be patients.

    Example:
        >>> read_names(["p1/scan", "p2/scan"])
        {'p1/scan': 'p1_scan', 'p2/scan': 'p2_scan'}
    """
    return {key: file_safe(key.replace("/", "_")) for key in keys}


def kinds_differ(case: Case) -> str:
    """A line if a case mixes pictures and volumes, else an empty text."""
    files = [*case.images, *case.label]
    kinds = {is_picture(path) for path in files}
    if len(kinds) < 2:
        return ""
    other = next(path for path in files if is_picture(path) != is_picture(files[0]))
    return f"{case.name}: {files[0]} and {other} are a volume and a picture. Save both in one format, best NIfTI."
