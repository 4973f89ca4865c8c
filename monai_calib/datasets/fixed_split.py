"""Splits that a list or a table fixes in part, and the folds of a cross-validation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai_calib.words import counted

from .dataset import Case, SourceError
from .patients import read_test_list
from .split import SPLITS, deal

__all__ = ["few_subjects", "split_in_part"]

FEWEST_TEST_SUBJECTS = 6
"""With fewer, the least p of the signed-rank test that compares two losses is above 5 %."""


def split_in_part(
    cases: Sequence[Case],
    fixed: Mapping[str, str],
    test: str | Path | None,
    fractions: Sequence[float],
    folds: int | None,
    seed: int,
    problems: list[str],
) -> list[dict[str, list[Case]]]:
    """Keep what a list or a table fixes and deal the rest by subject; with folds one split for each.

    Args:
        cases: with their subjects.
        fixed: the split of some or all cases, by name.
        test: a text file with the test cases, in place of those that are fixed.
        fractions: shares of training, validation and test; the last does not count where test cases are fixed.
        folds: number of folds; all but the test cases are dealt to them.
        seed: which split.
        problems: gets a line for each subject in two splits or groups, and where subjects are too few.

    Raises: :class:`SourceError` on fractions that are no shares.
    """
    if len(fractions) != 3 or not all(0 <= share <= 1e9 for share in fractions) or fractions[0] <= 0:
        raise SourceError(f"--fractions {fractions}: expected shares of training, validation and test. Correct them.")
    fixed = dict(fixed)
    if test is not None:
        listed, wrong = read_test_list(Path(test), [case.name for case in cases])
        problems += wrong
        fixed = {name: split for name, split in fixed.items() if split != "test"} | dict.fromkeys(listed, "test")
    placed: dict[str, list[Case]] = {split: [c for c in cases if fixed.get(c.name) == split] for split in SPLITS}
    rest = [case for case in cases if case.name not in fixed]
    problems += _torn_apart(cases, fixed)
    problems += _two_groups(cases)
    if problems:  # they are told; a split of what is left serves to look at the files
        return [{"training": list(cases), "validation": [], "test": []}]
    shares = [*fractions[:2], 0 if placed["test"] else fractions[2]]
    subjects = len({case.subject for case in rest})
    wanted = sum(share > 0 for share in shares)
    if folds is None:
        if rest and subjects < wanted:
            problems.append(
                f"{counted(subjects, 'subject')}: expected at least {wanted}, one for each split that has a share. "
                "Add data, or change --fractions."
            )
        dealt = deal(rest, shares, seed, none_empty=True) if rest else [[], [], []]
        return [{split: _ordered([*placed[split], *more]) for split, more in zip(SPLITS, dealt, strict=True)}]
    if placed["training"] or placed["validation"]:
        problems.append(f"--folds {folds}: training and validation are fixed by the table. Take the split out of it.")
    others, tested = (deal(rest, [sum(shares[:2]), shares[2]], seed, none_empty=True)) if shares[2] else (rest, [])
    if folds < 2 or len({case.subject for case in others}) < folds:
        count = len({case.subject for case in others})
        problems.append(f"--folds {folds}: expected 2 to {count}, the subjects that are not for the test. Correct it.")
        return [{"training": list(cases), "validation": [], "test": []}]
    parts = deal(others, [1] * folds, seed, none_empty=True)
    return [
        {
            "training": _ordered([case for other in parts if other is not part for case in other]),
            "validation": part,
            "test": _ordered([*placed["test"], *tested]),
        }
        for part in parts
    ]


def _ordered(cases: Sequence[Case]) -> list[Case]:
    return sorted(cases, key=lambda case: case.name)


def _torn_apart(cases: Sequence[Case], fixed: Mapping[str, str]) -> list[str]:
    """A line for each subject that a list puts in two splits."""
    where: dict[str, dict[str, str]] = defaultdict(dict)
    for case in cases:
        where[case.subject].setdefault(fixed.get(case.name, "the rest"), case.name)
    return [
        f"patient {subject}: {' and '.join(f'{name} in {split}' for split, name in places.items())}. A patient is in "
        "one split: list all the cases, or none."
        for subject, places in where.items()
        if len(places) > 1
    ]


def _two_groups(cases: Sequence[Case]) -> list[str]:
    groups: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        groups[case.subject].add(case.group)
    return [
        f"patient {subject}: in the groups {', '.join(map(repr, sorted(names)))}. A patient has one group; correct the "
        "table."
        for subject, names in groups.items()
        if len(names) > 1
    ]


def few_subjects(split: Mapping[str, Sequence[Case]]) -> list[str]:
    """Warn of a test split too small to tell anything."""
    count = len({case.subject for case in split["test"]})
    if count >= FEWEST_TEST_SUBJECTS or not split["test"]:
        return [] if split["test"] else ["no test cases: nothing will tell how good a network is on data it never saw."]
    return [
        f"{counted(count, 'test subject')}: too few to tell two methods apart; with fewer than "
        f"{FEWEST_TEST_SUBJECTS} the signed-rank test cannot reach 5 %. Give more with --fractions or --test."
    ]
