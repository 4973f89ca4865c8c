"""The raw data sets of nnU-Net v2: files named by case and channel, and a dataset.json of its own kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..archives import visible
from ..dataset import Case, SourceError
from .layout import PICTURES, Found

__all__ = ["read_nnunet"]


def read_nnunet(folder: Path, described: Mapping[str, Any]) -> Found:
    """Read ``imagesTr/case_0000.ext``, ``labelsTr/case.ext`` and ``dataset.json``; test cases where they have labels.

    Args:
        folder: holds them, and perhaps ``imagesTs`` and ``labelsTs``.
        described: content of ``dataset.json``: ``channel_names``, ``labels``, ``file_ending``.

    Raises: :class:`SourceError` on a ``dataset.json`` without what is needed to find files.
    """
    path = folder / "dataset.json"
    ending, channels, named = (described.get(key) for key in ("file_ending", "channel_names", "labels"))
    if not isinstance(ending, str) or not ending.startswith("."):
        raise SourceError(f'{path}: file_ending: expected such as ".nii.gz", got {ending!r}. Add it to the file.')
    if not isinstance(channels, Mapping) or sorted(channels, key=str) != sorted(map(str, range(len(channels)))):
        raise SourceError(
            f'{path}: channel_names: expected names under "0", "1", ..., got {channels!r}. Mend the file.'
        )
    if not isinstance(named, Mapping) or not named:
        raise SourceError(f"{path}: labels: expected values by name, got {named!r}. Mend the file.")
    found = Found(
        "nnU-Net v2",
        str(described.get("name") or folder.name),
        (folder,),
        channels=tuple(str(channels[str(number)]) for number in range(len(channels))),
        description=str(described.get("description") or ""),
        licence=str(described.get("licence") or described.get("license") or ""),
    )
    _read_labels(found, named, path)
    pictures = ending.lower() in PICTURES
    for part, split in (("Tr", ""), ("Ts", "test")):
        if part == "Ts" and not visible(folder / "labelsTs", f"*{ending}"):
            continue  # without labels there is nothing to measure
        for case in _cases(folder, part, ending, len(found.channels or ()), found.problems, pictures):
            if split:
                found.split[case.name] = split
            found.cases.append(case)
    if pictures and len(found.channels or ()) == 3 and found.cases and len(found.cases[0].images) == 1:
        found.channels = None  # colours, in one file: the pictures tell
    return found


def _cases(folder: Path, part: str, ending: str, channels: int, problems: list[str], pictures: bool) -> list[Case]:
    images = {file.name: file for file in visible(folder / f"images{part}", f"*{ending}")}
    labels = {file.name.removesuffix(ending): file for file in visible(folder / f"labels{part}", f"*{ending}")}
    cases = []
    there = {name.removesuffix(ending)[:-5] for name in images if _is_channel(name.removesuffix(ending))}
    for name in images:
        if not _is_channel(name.removesuffix(ending)):
            problems.append(f"{images[name]}: expected a name such as case_0000{ending}. Rename it.")
    for name in sorted(there | set(labels)):
        wanted = [f"{name}_{channel:04d}{ending}" for channel in range(channels)]
        if pictures and wanted[0] in images and not any(file in images for file in wanted[1:]):
            wanted = wanted[:1]
        lacking = [file for file in wanted if file not in images]
        problems += [f"{folder / f'images{part}' / file}: missing for the label or the other channels of {name}. "
                     "Add it, or take the case away." for file in lacking]  # fmt: skip
        if name not in labels:
            problems.append(f"{folder / f'labels{part}' / (name + ending)}: missing for the image of {name}. Add it.")
        elif not lacking:
            cases.append(Case(name, "", tuple(images[file] for file in wanted), (labels[name],)))
    return cases


def _is_channel(stem: str) -> bool:
    return len(stem) > 5 and stem[-5] == "_" and stem[-4:].isdigit()


def _read_labels(found: Found, named: Mapping[str, Any], path: Path) -> None:
    """Values by name; where they are regions, lists of values that overlap, each value is a class."""
    values: dict[str, list[int]] = {}
    for name, value in named.items():
        listed = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if not listed or not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in listed):
            found.problems.append(
                f"{path}: labels: {name}: expected a number or a list of them, got {value!r}. Mend it."
            )
        elif name == "ignore":
            found.ignore = listed[0]
        else:
            values[str(name)] = listed
    once = [one for listed in values.values() for one in listed]
    if len(set(once)) == len(once) and all(len(listed) == 1 for listed in values.values()):
        found.labels = values
        return
    alone = {listed[0]: name for name, listed in values.items() if len(listed) == 1}
    found.labels = {alone.get(value, f"label_{value}"): [value] for value in sorted({0, *once})}
    found.regions = {name: listed for name, listed in values.items() if len(listed) > 1}
    found.notes.append(
        f"regions of dataset.json overlap ({', '.join(found.regions)}): the classes are their values, and the regions "
        "are kept under 'regions' of datalist.json."
    )
