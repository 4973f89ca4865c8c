"""Names of classes: what --labels says, what the masks hold, and how a mask of numbers or colours is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_calib.words import counted

from .dataset import Case, SourceError, Volume
from .layouts.layout import is_picture
from .pictures import PLACE_OF_PICTURE, mask_colours, mask_values
from .volumes import read_volume

__all__ = ["Classes", "find_classes", "parse_labels"]

MOST_VALUES = 128
"""More different values than this are no class numbers, but grey levels."""
_IGNORE = "ignore"


@dataclass(frozen=True)
class Classes:
    """Names of the classes, and the values or colours that mean each.

    Attributes:
        names: from class 0, the background.
        values: value, or 0xRRGGBB, in the source -> class written.
        coloured: whether values are colours.
        ignore: the value written for what counts nowhere.
    """

    names: tuple[str, ...]
    values: Mapping[int, int] = field(default_factory=dict)
    coloured: bool = False
    ignore: int | None = None

    def read_picture(self, case: Case) -> Volume:
        """The mask of a case, a picture: its values as they are, or the classes of its colours."""
        path = case.label[0]
        if not self.coloured:
            return Volume(_plain_mask(path)[..., None], PLACE_OF_PICTURE)
        colours = mask_colours(path)
        found, where = np.unique(colours, return_inverse=True)
        unknown = [colour for colour in found.tolist() if colour not in self.values]
        if unknown:
            known = ", ".join(map(_hex, self.values))
            shown = ", ".join(map(_hex, unknown[:8])) + (f" and {len(unknown) - 8} more" if len(unknown) > 8 else "")
            raise SourceError(
                f"{path}: unknown colour {shown}; expected {known}. Name it: --labels name='{_hex(unknown[0])}'"
                f"{_smoothed(path, len(unknown))}."
            )
        classes = np.array([self.values[colour] for colour in found.tolist()], np.uint8)
        return Volume(classes[where.reshape(colours.shape)][..., None], PLACE_OF_PICTURE)


def parse_labels(given: Sequence[str]) -> dict[str, list[int | str]]:
    """Values or colours by name from ``name=value`` and ``name=#rrggbb``; several of a name are united.

    Raises: :class:`SourceError` on what is neither, and on a value that has two names.

    Example:
        >>> parse_labels(["nerve=1", "vessel=2,3"])
        {'nerve': [1], 'vessel': [2, 3]}
    """
    found: dict[str, list[int | str]] = {}
    for text in given:
        name, equals, listed = text.rpartition("=")
        values: list[int | str] = []
        for value in listed.split(","):
            value = value.strip().lower()
            if re.fullmatch(r"\d{1,6}", value):
                values.append(int(value))
            elif re.fullmatch(r"#[0-9a-f]{6}", value):
                values.append(value)
            else:
                raise SourceError(
                    f"--labels {text}: expected name=value with a whole number, or a colour such as "
                    "name='#800000' (in quotes)."
                )
        if not equals or not name.strip():
            raise SourceError(f"--labels {text}: expected name=value. Put a name before the =.")
        found.setdefault(name.strip(), []).extend(values)
    every = [value for values in found.values() for value in values]
    if len(set(every)) < len(every):
        twice = sorted({str(value) for value in every if every.count(value) > 1})
        raise SourceError(f"--labels: {', '.join(twice)} has two names. Give one.")
    if len({isinstance(value, str) for value in every}) > 1:
        raise SourceError("--labels: numbers and colours are mixed. Give all as numbers or all as colours.")
    return found


def find_classes(
    named: Mapping[str, Sequence[int | str]] | None, ignore: int | None, cases: Sequence[Case], problems: list[str]
) -> Classes:
    """The classes as named, else ``label_1``, ``label_2``, ... for the values that the labels hold.

    Args:
        named: values by name; class 0 is the background, by name or as the one of value 0 or of black.
        ignore: the value that counts nowhere.
        cases: whose labels are looked through where nothing is named.
        problems: gets a line where the values are no class numbers.
    """
    if named is None:
        values = sorted(_values_of(cases) - {0, ignore})
        example = cases[0].label[0] if cases else Path("label")
        if len(values) > MOST_VALUES or (values and values[0] < 0):
            problems.append(
                f"{example} and others hold {len(values)} different values from {values[0]} to {values[-1]}, which are "
                f"no class numbers. Name those that count with --labels name=value{_smoothed(example, len(values))}."
            )
            values = [value for value in values if value >= 0][:MOST_VALUES]
        elif not values and not problems:
            problems.append(
                f"{example} and the other labels hold nothing but 0. Give labels in which something is drawn."
            )
        named = {f"label_{number}": [value] for number, value in enumerate(values, 1)}
    coloured = any(isinstance(value, str) for listed in named.values() for value in listed)
    numbers = {name: [int(v[1:], 16) if isinstance(v, str) else v for v in listed] for name, listed in named.items()}
    ignored = numbers.pop(_IGNORE, [] if ignore is None else [ignore])
    of_zero = next((name for name, listed in numbers.items() if 0 in listed), "background")
    first = next((name for name in numbers if name.lower() == "background"), of_zero)
    background = numbers.pop(first, [] if 0 in ignored else [0])
    # in the order of the values, so that a label that is right already can stay as it is; colours as they were given
    order = list(numbers) if coloured else sorted(numbers, key=lambda name: min(numbers[name]))
    mapped = dict.fromkeys(background, 0)
    for number, name in enumerate(order, 1):
        mapped |= dict.fromkeys(numbers[name], number)
    written = None
    if ignored:
        written = ignored[0] if not coloured and len(ignored) == 1 and len(order) < ignored[0] <= 255 else 255
        mapped |= dict.fromkeys(ignored, written)
    return Classes((first, *order), mapped, coloured, written)


def _values_of(cases: Sequence[Case]) -> set[int]:
    """The values in all labels that can be read; what is wrong with one comes up when it is converted."""
    found: set[int] = set()
    for path in (path for case in cases for path in case.label):
        try:
            array: NDArray[Any] = _plain_mask(path) if is_picture(path) else read_volume(path).array
        except SourceError:
            continue
        found |= {int(value) for value in np.unique(array) if float(value) == round(float(value))}
    return found


def _plain_mask(path: Path) -> NDArray[Any]:
    """The numbers of a mask; where it has colours, an error that shows how to name them."""
    try:
        return mask_values(path)
    except SourceError:
        found, counts = np.unique(mask_colours(path), return_counts=True)
        most = [int(found[i]) for i in np.argsort(counts, kind="stable")[::-1] if found[i] != 0][:4]
        names = " ".join(f"label_{number}='{_hex(colour)}'" for number, colour in enumerate(most, 1))
        raise SourceError(
            f"{path}: expected a mask of class numbers, got {counted(len(found), 'colour')}. Name what they mean: "
            f"--labels {names}{_smoothed(path, len(found))}."
        ) from None


def _hex(colour: int) -> str:
    return f"#{colour:06x}"


def _smoothed(path: Path, values: int) -> str:
    """Advice for a mask whose values come from smoothing or compression."""
    lossy = path.name.lower().endswith((".jpg", ".jpeg"))
    if lossy or values > 16:
        reason = "JPEG" if lossy else "smoothing"
        return f"; {reason} changes the values of a mask: save it anew as PNG, unsmoothed"
    return ""
