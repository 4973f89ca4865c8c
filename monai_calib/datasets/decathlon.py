"""Find the cases of a Medical Segmentation Decathlon task: ``imagesTr``, ``labelsTr`` and ``dataset.json``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..files import read_json
from .archives import visible
from .dataset import Case, SourceError, name_problems

__all__ = ["decathlon_cases"]


def decathlon_cases(folder: Path, subject: Callable[[str], str]) -> list[Case]:
    """The labelled cases, which ``dataset.json`` and the two folders must agree about.

    Args:
        folder: holds ``dataset.json``, ``imagesTr`` and ``labelsTr``.
        subject: the subject of a case, from its name.

    Raises: :class:`SourceError` that lists every image without label, label without image, and file not there.
    """
    path = folder / "dataset.json"
    try:
        listed = {Path(pair["image"]).name for pair in read_json(path)["training"]}
    except Exception as error:  # whatever is in the file
        raise SourceError(f"{path}: not a Decathlon dataset.json ({type(error).__name__}: {error}).") from error
    files = {kind: {file.name for file in visible(folder / kind, "*.nii.gz")} for kind in ("imagesTr", "labelsTr")}
    problems = [
        f"{folder / kind / name}: missing, though {other} has it"
        for kind, there in files.items()
        for other, wanted in (("dataset.json", listed), *((k, v) for k, v in files.items() if k != kind))
        for name in sorted(wanted - there)
        if other == "dataset.json" or name not in listed
    ]
    problems += [
        f"{folder / 'imagesTr' / name}: not named in dataset.json"
        for name in sorted((files["imagesTr"] & files["labelsTr"]) - listed)
    ]
    if problems:
        raise name_problems(problems, f"{folder}: half-unpacked or altered")
    names = [name.removesuffix(".nii.gz") for name in sorted(listed)]
    return [
        Case(name, subject(name), (folder / f"imagesTr/{name}.nii.gz",), (folder / f"labelsTr/{name}.nii.gz",))
        for name in names
    ]
