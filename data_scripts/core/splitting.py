"""Splits cases into training, validation and test, by subject and with a share of every group in each."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from .dataset import Case

__all__ = ["SPLITS", "split_cases"]

SPLITS = ("training", "validation", "test")


def split_cases(cases: Sequence[Case], fractions: Sequence[float], seed: int = 0) -> dict[str, list[Case]]:
    """Deal subjects to the splits, group by group.

    Within a group the subjects are ordered by the SHA-256 digest of seed and name, laid end to end with their numbers
    of cases as lengths, and cut at the fractions; a subject goes where its middle lies. No random generator is
    involved, so a split is the same on every machine and with every version of Python and numpy, and a missing case
    hardly moves the others.

    Args:
        cases: all the cases.
        fractions: shares of training, validation and test; they are scaled to add up to 1.
        seed: another seed gives another split.

    Raises: ``ValueError`` on fractions that are no shares, or a subject in two groups.

    Example:
        >>> cases = [Case(f"{i}{side}", str(i), (), ()) for i in range(10) for side in "lr"]
        >>> {name: len(chosen) for name, chosen in split_cases(cases, (0.7, 0.1, 0.2)).items()}
        {'training': 14, 'validation': 2, 'test': 4}
    """
    if len(fractions) != 3 or min(fractions) < 0 or sum(fractions) <= 0:
        raise ValueError(f"Expected three shares for {', '.join(SPLITS)}, got {tuple(fractions)}.")
    groups: dict[str, dict[str, list[Case]]] = defaultdict(lambda: defaultdict(list))
    group_of: dict[str, str] = {}
    for case in cases:
        if group_of.setdefault(case.subject, case.group) != case.group:
            raise ValueError(f"Subject {case.subject} is in two groups: {group_of[case.subject]} and {case.group}.")
        groups[case.group][case.subject].append(case)
    splits: dict[str, list[Case]] = {name: [] for name in SPLITS}
    first, second = (sum(fractions[: i + 1]) / sum(fractions) for i in range(2))
    for subjects in groups.values():
        total = sum(len(members) for members in subjects.values())
        before = 0
        for subject in sorted(subjects, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest()):
            middle = (before + len(subjects[subject]) / 2) / total
            before += len(subjects[subject])
            name = SPLITS[0] if middle < first else SPLITS[1] if middle < second else SPLITS[2]
            splits[name] += subjects[subject]
    return {name: sorted(chosen, key=lambda case: case.name) for name, chosen in splits.items()}
