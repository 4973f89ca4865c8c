"""Splits: no subject in two, groups shared out evenly, the same everywhere and for ever."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_calib.datasets.dataset import Case
from monai_calib.datasets.split import SPLITS, split_cases


def make_cases(sizes: dict[str, list[int]]) -> list[Case]:
    """``sizes``: for each group the number of cases of each of its subjects."""
    return [
        Case(f"{group}{subject}_{i}", f"{group}{subject}", (), (), group)
        for group, counts in sizes.items()
        for subject, count in enumerate(counts)
        for i in range(count)
    ]


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from("ABC"), st.lists(st.integers(1, 3), min_size=1, max_size=30), min_size=1),
    st.tuples(*[st.floats(0.01, 1.0)] * 3),
    st.integers(0, 100),
)
def test_every_case_is_in_one_split_and_no_subject_in_two(sizes, fractions, seed):
    cases = make_cases(sizes)
    splits = split_cases(cases, fractions, seed)
    assert sorted(case.name for chosen in splits.values() for case in chosen) == sorted(case.name for case in cases)
    subjects = [{case.subject for case in splits[name]} for name in SPLITS]
    assert sum(map(len, subjects)) == len(set().union(*subjects))
    for share, name in zip(fractions, SPLITS, strict=True):
        # Each of the two cuts is at most half a subject, here 1.5 cases, from where it should be.
        assert abs(len(splits[name]) - share / sum(fractions) * len(cases)) <= 3 + 1e-9


def test_groups_are_shared_out_exactly_where_they_can_be():
    cases = make_cases({group: [2] * 20 for group in "ABCDE"})
    splits = split_cases(cases, (0.7, 0.1, 0.2), seed=3)
    for name, subjects in zip(SPLITS, (14, 2, 4), strict=True):
        assert Counter(case.group for case in splits[name]) == dict.fromkeys("ABCDE", 2 * subjects)


def test_small_groups_leave_no_split_empty():
    splits = split_cases(make_cases({group: [2, 2] for group in "ABCDE"}), (0.7, 0.1, 0.2))
    assert [len(splits[name]) for name in SPLITS] == [14, 2, 4]


def test_order_of_the_cases_does_not_matter_and_the_seed_does():
    cases = make_cases({"": [1] * 60})
    names = [[case.name for case in split_cases(given, (0.6, 0.2, 0.2), seed)["test"]]
             for given, seed in ((cases, 0), (cases[::-1], 0), (cases, 1))]  # fmt: skip
    assert names[0] == names[1] != names[2]


def test_a_missing_case_hardly_moves_the_others():
    cases = make_cases({"": [1] * 100})
    whole, less = (split_cases(given, (0.5, 0.2, 0.3)) for given in (cases, cases[1:]))
    moved = [case for name in SPLITS for case in less[name] if case not in whole[name]]
    assert len(moved) <= 2


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0, 0, 0), (1, -0.1, 0.1), (float("nan"), 1, 1)])
def test_shares_that_are_none_are_refused(fractions):
    with pytest.raises(ValueError, match="three shares"):
        split_cases(make_cases({"": [1]}), fractions)


def test_a_subject_in_two_groups_is_named():
    with pytest.raises(ValueError, match="Subject 7 is in two groups: A and B"):
        split_cases([Case("a", "7", (), (), "A"), Case("b", "7", (), (), "B")], (1, 1, 1))
