"""Say whom each case was taken from: by a pattern, a table, blocks of numbers, or the rule of a known data set."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from monai_calib.words import counted

from .case import case_of_file
from .dataset import Case, SourceError
from .known import known_rule
from .layouts.table import read_csv

__all__ = ["name_patients", "read_test_list", "shared_stems"]

_CASE = ("case", "name", "image", "file", "id")
_PATIENT = ("patient", "subject", "patient_id", "subject_id", "patientid")
_GROUP = ("group", "site", "stratum", "diagnosis")


def name_patients(
    cases: Sequence[Case], title: str, patients: str | None = None, block: int | None = None
) -> tuple[list[Case], str, list[str], list[str]]:
    """Give every case its subject.

    Args:
        cases: with the subject that their table says, or an empty one.
        title: name of the data set; a known one brings its own rule.
        patients: a CSV file with a row per case, or a regular expression whose first group is the patient.
        block: how many neighbouring numbers make one subject, for series in which neighbours look alike.

    Returns:
        The cases, the rule in words, problems and things to beware of.

    Raises: :class:`SourceError` on options that say nothing, or two things.
    """
    if patients is not None and block is not None:
        raise SourceError("--patients and --block: both say what stays together. Give one of them.")
    if block is not None:
        if block < 1:
            raise SourceError(f"--block {block}: expected 1 or more neighbouring numbers. Correct it.")
        named = [(case, _block(case.name, block)) for case in cases]
        lacking = [case.name for case, found in named if not found]
        problems = [f"{name}: no number in its name, which --block needs. Use --patients." for name in lacking]
        held = counted(block, "number")
        note = f"a subject is a block of {held}, not a person: one person may be in training and in test."
        return (
            [replace(case, subject=found or case.name) for case, found in named],
            f"blocks of {block}",
            problems,
            [note],
        )
    if patients is not None:
        if Path(patients).suffix.lower() == ".csv":
            return _by_table(cases, Path(patients))
        return _by_pattern(cases, patients)
    if any(case.subject for case in cases):
        problems = [
            f"{case.name} ({case.images[0].name}): no patient in the table. Fill the column, or use --patients."
            for case in cases
            if not case.subject
        ]
        return list(cases), "the table", problems, []
    rule = known_rule(title, [case.name for case in cases])
    if rule is not None:
        ruled = [replace(case, subject=rule.subject(case.name)) for case in cases]
        return ruled, f"{rule.title}: {rule.words}", [], []
    stems = shared_stems(case.name for case in cases)
    if stems:
        listed = "; ".join(f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}" for names in stems[:3])
        advice = f"These names share a stem: {listed}. If that is a patient: --patients '^(.+)[-_. ]'."
    else:
        advice = "If a patient has several, or neighbours look alike: --patients REGEX or CSV, or --block N."
    note = f"each case is taken as a patient, so that cases of one patient may be in training and in test. {advice}"
    return [replace(case, subject=case.name) for case in cases], "each case", [], [note]


def shared_stems(names: Iterable[str]) -> list[list[str]]:
    """Names that are the same up to their last part, unless all are.

    Example:
        >>> shared_stems(["p1_a", "p1_b", "p2_a", "p3_a"])
        [['p1_a', 'p1_b']]
        >>> shared_stems(["case_1", "case_2"])
        []
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        groups[re.sub(r"[-_. ][^-_. ]*$", "", name)].append(name)
    return [shared for shared in groups.values() if len(shared) > 1] if len(groups) > 1 else []


def read_test_list(path: Path, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The cases of a text file, one a line, by name or file name; and a line for each that is no case.

    Raises: :class:`SourceError` on a file that cannot be read, or lists nothing.
    """
    try:
        lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"--test {path}: cannot be read ({error}). Give a text file, one case per line.") from error
    wanted = [line for line in lines if line]
    if not wanted:
        raise SourceError(f"--test {path}: lists no case. Write one per line.")
    known = set(names)
    found = [line if line in known else case_of_file(line) for line in wanted]
    problems = [
        f"{path}: {line} is no case. Correct or remove the line." for line, name in zip(wanted, found, strict=True)
        if name not in known
    ]  # fmt: skip
    return [name for name in found if name in known], problems


def _block(name: str, size: int) -> str:
    """The stem and the number of the block that the last number of a name is in."""
    match = re.search(r"(\d+)\D*$", name)
    return f"{name[: match.start()]}block{int(match[1]) // size:03d}" if match else ""


def _by_pattern(cases: Sequence[Case], pattern: str) -> tuple[list[Case], str, list[str], list[str]]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise SourceError(
            f"--patients {pattern}: no regular expression ({error}), and no .csv file. Example: '(patient\\d+)_'."
        ) from error
    problems, named = [], []
    for case in cases:
        match = expression.search(case.name)
        text = next((group for group in match.groups() if group), match[0]) if match else ""
        if not text:
            problems.append(
                f"{case.name}: no patient by --patients {pattern}. Correct the pattern, or give a CSV file."
            )
        named.append(replace(case, subject=text or case.name))
    return named, f"the pattern {pattern}", problems, []


def _by_table(cases: Sequence[Case], path: Path) -> tuple[list[Case], str, list[str], list[str]]:
    rows = read_csv(path)
    header = list(rows[0]) if rows else []
    columns = [next((name for name in wanted if name in header), "") for wanted in (_CASE, _PATIENT, _GROUP)]
    if not columns[0] or not columns[1]:
        raise SourceError(
            f"--patients {path}: expected the columns case and patient, got {', '.join(header) or 'none'}."
        )
    table: dict[str, tuple[str, str]] = {}
    problems = []
    names = {case.name for case in cases}
    for row in rows:
        said = row[columns[0]]
        name = said if said in names else case_of_file(said)
        entry = row[columns[1]], row[columns[2]] if columns[2] else ""
        if table.setdefault(name, entry) != entry:
            problems.append(f"{path}: {name} has two patients, {table[name][0]} and {entry[0]}. Keep one row.")
    lacking = sorted(name for name in names if not table.get(name, ("", ""))[0])
    problems += [f"{name}: no patient in {path}. Add a row, or leave the case out with --exclude." for name in lacking]
    unknown = sorted(set(table) - names)
    notes = [f"{path} names {len(unknown)} that are no case: {', '.join(unknown[:5])}."] if unknown else []
    named = []
    for case in cases:
        subject, group = table.get(case.name, ("", ""))
        named.append(replace(case, subject=subject or case.name, group=group or case.group))
    return named, f"the table {path.name}", problems, notes
