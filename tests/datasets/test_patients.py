"""Whom a case is of: rules of known sets, patterns, tables, blocks; and no subject in two parts of a split."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_calib.datasets.dataset import Case
from monai_calib.datasets.known import known_rule
from monai_calib.datasets.patients import name_patients, shared_stems
from monai_calib.datasets.split import deal


def cases_of(names: list[str]) -> list[Case]:
    return [Case(name, "", (), ()) for name in names]


def test_the_hippocampus_by_its_files_and_by_its_dataset_json() -> None:
    for title, stem in (("Hippocampus", "hippocampus_"), ("mine", "hippocampus_"), ("hippocampus", "scan_")):
        named, by, problems, notes = name_patients(cases_of([f"{stem}{i:03d}" for i in range(1, 395)]), title)
        assert [case.subject for case in named] == [str((i + 1) // 2) for i in range(1, 395)]
        assert "MSD Hippocampus" in by
        assert not problems
        assert not notes


@pytest.mark.parametrize(
    ("names", "subjects"),
    [
        (
            ["patient001_frame01", "patient001_frame12", "patient100_frame01"],
            ["patient001", "patient001", "patient100"],
        ),
        (["patient007_patient007_frame01", "patient008_patient008_frame12"], ["patient007", "patient008"]),
        (["BraTS19_CBICA_AAB_1", "BraTS19_2013_10_1"], ["BraTS19_CBICA_AAB", "BraTS19_2013_10"]),
        (["BraTS-GLI-00005-000", "BraTS-GLI-00005-001"], ["BraTS-GLI-00005"] * 2),
    ],
)
def test_other_known_sets(names: list[str], subjects: list[str]) -> None:
    named, _, _, notes = name_patients(cases_of(names), "mine")
    assert [case.subject for case in named] == subjects
    assert not notes


def test_a_known_name_among_others_makes_no_known_set() -> None:
    assert known_rule("mine", ["hippocampus_001", "other"]) is None
    assert known_rule("mine", ["BraTS20_Training_001", "BraTS20_Training_002"]) is None
    assert known_rule("mine", []) is None


def test_without_a_rule_it_is_said_and_shared_stems_are_shown() -> None:
    named, _, _, [note] = name_patients(cases_of(["p1_a", "p1_b", "p2_a", "p3"]), "mine")
    assert [case.subject for case in named] == ["p1_a", "p1_b", "p2_a", "p3"]
    assert "each case is taken as a patient" in note
    assert "p1_a, p1_b" in note
    assert "p2_a" not in note
    assert shared_stems(["0001", "0002"]) == []


def test_a_pattern_gives_its_first_group_or_all_of_the_match() -> None:
    cases = cases_of(["a-12-x", "a-13-y"])
    assert [case.subject for case in name_patients(cases, "", r"(\d+)")[0]] == ["12", "13"]
    assert [case.subject for case in name_patients(cases, "", r"a-\d")[0]] == ["a-1", "a-1"]
    assert [case.subject for case in name_patients(cases, "", r"(z)|-(\d+)-")[0]] == ["12", "13"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_by_case_or_file_name_with_groups(separator: str, tmp_path: Path) -> None:
    rows = [["File", "Patient_ID", "Site"], ["a.nii.gz", "1", "north"], ["b", "2", "south"], ["c.png", "9", ""]]
    (tmp_path / "p.csv").write_text("\n".join(separator.join(row) for row in rows), encoding="utf-8-sig")
    named, _, problems, [note] = name_patients(cases_of(["a", "b"]), "", str(tmp_path / "p.csv"))
    assert [(case.subject, case.group) for case in named] == [("1", "north"), ("2", "south")]
    assert not problems
    assert "names 1 that are no case: c" in note


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(1, 9))
def test_blocks_hold_neighbours_and_nothing_else(numbers: list[int], size: int) -> None:
    names = sorted({f"s{number:02d}" for number in numbers})
    named, _, problems, _ = name_patients(cases_of(names), "", block=size)
    assert not problems
    for one in named:
        for other in named:
            together = int(one.name[1:]) // size == int(other.name[1:]) // size
            assert (one.subject == other.subject) == together
    assert name_patients(cases_of(["first"]), "", block=2)[2]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=50),
    st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(lambda shares: sum(shares) > 0),
    st.integers(0, 3),
)
def test_every_case_is_dealt_once_and_no_subject_twice(owners: list[int], shares: list[int], seed: int) -> None:
    cases = [Case(f"c{i}", str(owner), (), ()) for i, owner in enumerate(owners)]
    for none_empty in (False, True):
        parts = deal(cases, shares, seed, none_empty)
        assert sorted(case.name for part in parts for case in part) == sorted(case.name for case in cases)
        subjects = [{case.subject for case in part} for part in parts]
        assert sum(map(len, subjects)) == len(set(owners))
        assert all(not part for part, share in zip(parts, shares, strict=True) if not share)
    wanted = sum(share > 0 for share in shares)
    assert sum(map(bool, parts)) == min(wanted, len(set(owners)))
