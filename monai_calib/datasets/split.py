"""Split cases into training, validation and test, by subject and with a share of every group in each."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from .datalist import SPLITS
from .dataset import Case

__all__ = ["SPLITS", "deal", "split_cases"]


def split_cases(cases: Sequence[Case], fractions: Sequence[float], seed: int = 0) -> dict[str, list[Case]]:
    """Deal subjects to training, validation and test, a share of each group to each; see :func:`deal`.

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
    if len(fractions) != 3 or not all(0 <= share < float("inf") for share in fractions) or sum(fractions) <= 0:
        raise ValueError(f"Expected three shares for {', '.join(SPLITS)}, got {tuple(fractions)}.")
    return dict(zip(SPLITS, deal(cases, fractions, seed), strict=True))


def deal(cases: Sequence[Case], shares: Sequence[float], seed: int = 0, none_empty: bool = False) -> list[list[Case]]:
    """Deal subjects to parts, a share of each group to each part.

    The subjects of a group are ordered by the SHA-256 digest of seed and name and laid end to end on [0, 1], their
    numbers of cases being their lengths. All subjects, in the order of their middles there, are then laid end to end
    once more and cut at the shares; a subject goes where its middle lies. So every group is shared out as evenly
    as its size allows, and the whole is too, be the groups ever so small. No random generator is involved: a split is
    the same on every machine and with every version of Python and numpy, and a missing case hardly moves the others.

    Args:
        cases: all the cases.
        shares: of each part; they are scaled to add up to 1.
        seed: another seed gives another split.
        none_empty: with subjects so few that a part with a share would get none, give it one of the fullest part.

    Raises: ``ValueError`` on a subject in two groups.
    """
    groups: dict[str, dict[str, list[Case]]] = defaultdict(lambda: defaultdict(list))
    group_of: dict[str, str] = {}
    for case in cases:
        if group_of.setdefault(case.subject, case.group) != case.group:
            raise ValueError(f"Subject {case.subject} is in two groups: {group_of[case.subject]} and {case.group}.")
        groups[case.group][case.subject].append(case)
    ends = [sum(shares[: i + 1]) / sum(shares) for i in range(len(shares) - 1)]

    def digest(subject: str) -> bytes:
        return hashlib.sha256(f"{seed}:{subject}".encode()).digest()

    ranked = [
        (middle, digest(members[0].subject), members)
        for subjects in groups.values()
        for middle, members in _middles([subjects[subject] for subject in sorted(subjects, key=digest)])
    ]
    parts: list[list[list[Case]]] = [[] for _ in shares]
    for middle, members in _middles([members for *_, members in sorted(ranked, key=lambda rank: rank[:2])]):
        parts[sum(middle >= end for end in ends)].append(members)
    if none_empty:
        for part, share in zip(parts, shares, strict=True):
            fullest = max(parts, key=len)
            if share > 0 and not part and len(fullest) > 1:
                part.append(fullest.pop())
    return [sorted((case for members in part for case in members), key=lambda case: case.name) for part in parts]


def _middles(subjects: Sequence[list[Case]]) -> list[tuple[float, list[Case]]]:
    """Middle of each subject when all are laid end to end on [0, 1], as long as they have cases."""
    total, before, placed = sum(map(len, subjects)), 0, []
    for members in subjects:
        placed.append(((before + len(members) / 2) / total, members))
        before += len(members)
    return placed
