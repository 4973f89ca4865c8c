"""Meanings of labels, in the codes that DICOM asks of a segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydicom.sr.coding import Code

from monai_calib.files import read_json

from ..version import __version__

__all__ = ["CONFIDENCE", "PROBABILITY", "Algorithm", "Structure", "name_structures", "read_labels"]


@dataclass(frozen=True)
class Structure:
    """One segment's name and its codes: category, type and, where the type alone says too little, a modifier.

    ``coded`` is false if the name was not in the table and the codes say "anatomical structure" only.
    """

    name: str
    category: Code
    type: Code
    modifier: Code | None = None
    coded: bool = True


@dataclass(frozen=True)
class Algorithm:
    """Name and version of what made the segmentation, as written into every segment."""

    name: str = "monai_calib"
    version: str = __version__


# No published code says "probability that the label is right"; designators that begin with 99 are private.
CONFIDENCE = Structure(
    "Confidence in the label",
    Code("309825002", "SCT", "Spatial and Relational Concept"),
    Code("confidence", "99MONAICALIB", "Probability that the label is right"),
)
# Nor does one say "probability of the class".
PROBABILITY = Code("probability", "99MONAICALIB", "Probability of the class")
_UNKNOWN = Code("91723000", "SCT", "Anatomical Structure")


@cache
def _table() -> dict[str, dict[str, list[str]]]:
    return dict(read_json(Path(__file__).with_name("concepts.json")))


def name_structures(labels: Mapping[int, str | Mapping[str, Any]], context: str = "") -> dict[int, Structure]:
    """Codes for the labels of a segmentation; label 0, the background, is left out.

    A label is a name, or ``{"name": …, "category": [value, scheme, meaning], "type": […], "modifier": […]}``. A name
    is looked up as it is and together with a word of ``context``: "anterior" of a "Hippocampus" bundle is the anterior
    hippocampus. A name that is not in ``concepts.json`` becomes an "anatomical structure" of that name.

    Raises:
        ValueError: an entry is neither, or a code is not three strings that DICOM can hold.

    Example:
        >>> found = name_structures({0: "background", 1: "anterior", 2: "gizzard"}, context="Hippocampus MRI")
        >>> found[1].type.meaning, found[1].modifier.meaning, found[2].coded
        ('Hippocampus', 'Anterior', False)
    """
    return {label: _structure(label, given, context) for label, given in sorted(labels.items()) if label != 0}


def read_labels(path: str | Path) -> tuple[dict[int, Structure], Algorithm]:
    """Structures by label from a bundle's ``metadata.json`` or a ``labels.json`` such as ``{"1": "liver"}``.

    From a bundle come also its name and version, as the algorithm.

    Raises:
        ValueError: the file is neither.
    """
    source = Path(path)
    try:
        content = read_json(source)
        if "network_data_format" in content:
            channels = content["network_data_format"]["outputs"]["pred"]["channel_def"]
            name = str(content["name"])
            structures = name_structures({int(label): text for label, text in channels.items()}, context=name)
            return structures, Algorithm(name, str(content["version"]))
        return name_structures({int(label): text for label, text in content.items()}), Algorithm()
    except Exception as error:  # whatever is in the file
        raise ValueError(
            f"{source} tells no labels ({type(error).__name__}: {error}); expected a bundle's metadata.json, or labels "
            'such as {"1": "liver"} or {"1": {"name": "liver", "category": ["91723000", "SCT", "Anatomical '
            'Structure"], "type": ["10200004", "SCT", "Liver"]}}'
        ) from error


def _structure(label: int, given: str | Mapping[str, Any], context: str) -> Structure:
    if label < 0:
        raise ValueError(f"label {label} is negative; expected 0 for the background and 1, 2, … for structures")
    if isinstance(given, str):
        codes = _look_up(given, context)
        if codes is None:
            return Structure(given, _UNKNOWN, _UNKNOWN, coded=False)
        return _from_codes(given, codes)
    return _from_codes(str(given["name"]), given)


def _look_up(name: str, context: str) -> dict[str, list[str]] | None:
    plain = name.strip().lower()
    for tried in (plain, *(f"{plain} {word}" for word in context.lower().split())):
        if tried in _table():
            return _table()[tried]
    return None


def _from_codes(name: str, codes: Mapping[str, Any]) -> Structure:
    modifier = _code(codes["modifier"]) if "modifier" in codes else None
    return Structure(name, _code(codes["category"]), _code(codes["type"]), modifier)


def _code(parts: Sequence[str]) -> Code:
    # The standard's lengths of value, scheme and meaning.
    if len(parts) != 3 or not all(
        isinstance(part, str) and 0 < len(part) <= length for part, length in zip(parts, (16, 16, 64), strict=True)
    ):
        raise ValueError(
            f"{parts!r} is no code; expected [value, scheme, meaning], of at most 16, 16 and 64 characters"
        )
    return Code(*parts)
