"""The layout of the Medical Segmentation Decathlon, which many kept for data of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..archives import visible
from ..case import case_of_file
from ..dataset import Case
from .layout import Found

__all__ = ["read_decathlon"]


def read_decathlon(folder: Path, described: Mapping[str, Any]) -> Found:
    """Read ``dataset.json``, ``imagesTr`` and ``labelsTr``, which must agree about the cases.

    Args:
        folder: holds them.
        described: content of ``dataset.json``; ``training`` lists pairs of image and label.
    """
    found = Found(
        "Medical Segmentation Decathlon",
        str(described.get("name") or folder.name),
        (folder,),
        description=str(described.get("description") or ""),
        licence=str(described.get("licence") or described.get("license") or ""),
    )
    path = folder / "dataset.json"
    found.channels = _numbered(described.get("modality"), path, "modality", found.problems)
    names = _numbered(described.get("labels"), path, "labels", found.problems)
    if names is not None:
        found.labels = {name: [value] for value, name in enumerate(names)}
    for number, pair in enumerate(described["training"] if isinstance(described["training"], list) else []):
        try:
            image, label = folder / pair["image"], folder / pair["label"]
        except (KeyError, TypeError):
            found.problems.append(f"{path}: training, entry {number}: expected image and label, got {pair!r}. Mend it.")
            continue
        images = (image,) if image.is_file() else _by_channel(image)
        missing = [f"{file}: missing, though dataset.json names it. Unpack again, or take it out of the list."
                   for file in (*images, label) if not file.is_file()]  # fmt: skip
        found.problems += missing
        if not missing:
            found.cases.append(Case(case_of_file(image), "", images, (label,)))
    listed = {file.resolve() for case in found.cases for file in (*case.images, *case.label)}
    unlisted = [file for kind in ("imagesTr", "labelsTr") for file in visible(folder / kind, "*.nii.gz")
                if file.resolve() not in listed and not any(str(file) in line for line in found.problems)]  # fmt: skip
    found.problems += [f"{file}: not named in dataset.json. Add it there, or take the file away." for file in unlisted]
    return found


def _by_channel(image: Path) -> tuple[Path, ...]:
    """The files of an image as the first nnU-Net kept them: ``case_0000.nii.gz`` where ``case.nii.gz`` is listed."""
    stem, ending = case_of_file(image), image.name[len(case_of_file(image)) :]
    return tuple(visible(image.parent, f"{stem}_[0-9][0-9][0-9][0-9]{ending}")) or (image,)


def _numbered(named: Any, path: Path, key: str, problems: list[str]) -> tuple[str, ...] | None:
    """The names under the keys "0", "1", ... in their order."""
    if not named:
        return None
    if not isinstance(named, Mapping) or sorted(named, key=str) != sorted(map(str, range(len(named)))):
        problems.append(f'{path}: {key}: expected names under "0", "1", ..., got {named}. Mend it.')
        return None
    return tuple(str(named[str(number)]) for number in range(len(named)))
