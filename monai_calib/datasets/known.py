"""Known data sets whose names of cases tell the subject, recognised by dataset.json or by the names of the files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .dataset import SourceError

__all__ = ["Rule", "hippocampus_subject", "known_rule"]


class Rule(NamedTuple):
    """The subject of a case by its name, and the rule in words."""

    title: str
    words: str
    subject: Callable[[str], str]


def hippocampus_subject(name: str) -> str:
    """The left and the right hippocampus of one scan have numbers 2n - 1 and 2n: a split must not part them.

    Example:
        >>> [hippocampus_subject(f"hippocampus_{number:03d}") for number in (1, 2, 3, 394)]
        ['1', '1', '2', '197']
    """
    number = name.rpartition("_")[2]
    if not number.isdigit():
        raise SourceError(f"{name}: expected a name such as hippocampus_001, whose number tells the subject.")
    return str((int(number) + 1) // 2)


def _matched(pattern: str) -> Callable[[str], str]:
    return lambda name: (re.match(pattern, name) or [name, name])[1]


_HIPPOCAMPUS = Rule("MSD Hippocampus", "(number + 1) // 2, left and right of a scan", hippocampus_subject)
_BY_FILES = (
    (r"hippocampus_\d+", _HIPPOCAMPUS),
    (r"(.*_)?patient\d+_frame\d+", Rule("ACDC", "the patient before _frame", _matched(r".*(patient\d+)_frame"))),
    (r"BraTS1\d_\w+_\w+_\d+", Rule("BraTS 2018/19", "the name before the scan's number", _matched(r"(.+)_\d+$"))),
    (r"BraTS-[A-Z]+-\d+-\d+", Rule("BraTS 2023", "the name before the scan's number", _matched(r"(.+)-\d+$"))),
)
_BY_TITLE = {"hippocampus": (r"(?:.*_)?\d+", _HIPPOCAMPUS)}


def known_rule(title: str, names: Sequence[str]) -> Rule | None:
    """The rule of a data set that is known by its title in dataset.json, or all of whose cases are named as its files.

    Example:
        >>> known_rule("my own", ["patient007_frame01", "patient007_frame12"]).subject("patient007_frame12")
        'patient007'
        >>> known_rule("my own", ["patient007_frame01", "other"]) is None
        True
    """
    by_title = _BY_TITLE.get(title.lower())
    for pattern, rule in [*([by_title] if by_title else []), *_BY_FILES]:
        if names and all(re.fullmatch(pattern, name) for name in names):
            return rule
    return None
