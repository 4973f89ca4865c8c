"""Own images and labels, in whichever layout they lie, as a folder that a bundle trains on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .case import file_safe
from .channels import channel_names, check_pixels, in_colours, read_grey
from .convert import Progress, check_output, plainly, refusal, write_cases
from .dataset import Case, Dataset, SourceError, Volume
from .fixed_split import few_subjects, split_in_part
from .label_names import Classes, find_classes, parse_labels
from .layouts import Found, recognise
from .layouts.layout import is_picture, kinds_differ
from .patients import name_patients
from .pictures import read_colours

__all__ = ["prepare"]


def prepare(
    source: str | Path,
    output: str | Path,
    labels_at: str | Path | None = None,
    *,
    labels: Sequence[str] = (),
    patients: str | None = None,
    block: int | None = None,
    test: str | Path | None = None,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    folds: int | None = None,
    unit: str | None = None,
    raters: str | None = None,
    exclude: Sequence[str] = (),
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress = plainly,
) -> str:
    """Write a data set from images and labels of one's own; returns the summary.

    The layout is recognised (:mod:`monai_calib.datasets.layouts`). NIfTI that needs no change stays where it is and is
    named by its full path; pictures, NRRD and MetaImage are written as NIfTI. All or nothing is written, as by
    :func:`monai_calib.datasets.convert.convert`.

    Args:
        source: a folder, or a table.
        output: a folder that does not exist yet.
        labels_at: a second folder, or a pattern with ``{case}``, where the labels lie elsewhere.
        labels: ``name=value`` of each class, or ``name=#rrggbb``; ``ignore=value`` counts nowhere.
        patients: a regular expression whose first group is the patient, or a CSV file with the columns case, patient.
        block: how many neighbouring numbers stay together.
        test: a text file with the cases of the test split, one a line.
        fractions: shares of the subjects in training, validation and test; with ``test`` the first two count.
        folds: number of folds for cross-validation; all but the test cases are dealt to them.
        unit: ``"mm"``, or ``"px"`` where the size of a pixel is not known; by default px for pictures.
        raters: pattern of the labels of several raters, with ``{rater}`` and ``{case}``.
        exclude: names of cases to leave out.
        seed: which split.
        overwrite: replace an earlier result at ``output``, at the very end.
        progress: wraps the sequence of cases, for a progress bar.

    Raises: :class:`SourceError` that lists all that is wrong, what to do about each, and that nothing was written.
    """
    output = Path(output).resolve()
    if unit not in (None, "mm", "px"):
        raise SourceError(f"--unit {unit}: expected mm or px. Correct it.")
    named = parse_labels(labels) if labels else None
    check_output(output, [], overwrite)
    found = recognise(Path(source), labels_at, raters)
    check_output(output, found.sources, overwrite)
    problems, notes = found.problems, found.notes
    cases = _usable(found, exclude, problems)
    _refuse_files_in(output, cases)
    if not cases:
        raise refusal(problems or [f"{source}: no case found. Name another source."])
    cases, by, wrong, doubts = name_patients(cases, found.title, patients, block)
    problems += wrong
    notes += doubts
    splits = split_in_part(cases, found.split, test, fractions, folds, seed, problems)
    classes = find_classes(named if named is not None else found.labels, found.ignore, cases, problems)
    pictures = is_picture(cases[0].images[0])
    unit = unit or ("px" if pictures else "mm")
    dataset = _dataset(found, cases, classes, pictures, unit, notes)
    if unit == "px" and not pictures:
        check_pixels(cases, problems)
    notes += few_subjects(splits[0])
    about = {
        "patients": by,
        "seed": seed,
        "fractions": list(fractions),
        "excluded": sorted(exclude),
        **({"folds": folds} if folds else {}),
    }
    return write_cases(dataset, splits, output, about, problems, notes, progress)


def _usable(found: Found, exclude: Sequence[str], problems: list[str]) -> list[Case]:
    """The cases that are not left out and have names of their own."""
    cases = [replace(case, name=file_safe(case.name)) for case in found.cases]
    known = {case.name for case in cases}
    problems += [f"--exclude {name}: no such case. Correct the name." for name in exclude if name not in known]
    counted = Counter(case.name for case in cases)
    for name, count in counted.items():
        if count > 1:
            files = ", ".join(str(case.images[0]) for case in cases if case.name == name)
            problems.append(f"{name}: {count} cases have this name ({files}). Rename them, or name each once.")
    mixed = {case.name: line for case in cases if (line := kinds_differ(case))}
    if cases and len({is_picture(case.images[0]) for case in cases}) > 1:
        problems.append("some cases are pictures and some are volumes. Prepare them one after the other.")
        first = is_picture(cases[0].images[0])
        cases = [case for case in cases if is_picture(case.images[0]) == first]
    problems += mixed.values()
    return [case for case in cases if case.name not in {*exclude, *mixed} and counted[case.name] == 1]


def _refuse_files_in(output: Path, cases: Sequence[Case]) -> None:
    """Replacing a folder must not destroy what the new one is made from."""
    for path in (path for case in cases for path in (*case.images, *case.label)):
        if path.resolve().is_relative_to(output.resolve()):
            raise SourceError(f"{output}: {path} lies in it and would be replaced. Choose another output.")


def _dataset(
    found: Found, cases: Sequence[Case], classes: Classes, pictures: bool, unit: str, notes: list[str]
) -> Dataset:
    colours = pictures and in_colours(cases, notes)
    channels = found.channels or (("red", "green", "blue") if colours else channel_names(cases[0], pictures))

    def read_image(case: Case) -> Volume:
        return read_colours(case.images[0]) if colours else read_grey(case)

    about: dict[str, Any] = {"layout": found.layout, "unit": unit, "dimensions": 2 if pictures else 3}
    if classes.ignore is not None:
        about["ignore_index"] = classes.ignore
    if found.regions:
        about["regions"] = {name: list(values) for name, values in found.regions.items()}
    written = {value: value for value in (*range(len(classes.names)), classes.ignore) if value is not None}
    return Dataset(
        key=f"prepare {dict(classes.values)}",  # what an interrupted run with other classes wrote does not count
        title=found.title,
        description=found.description,
        licence=found.licence or "not stated",
        layout=found.layout,
        modality=tuple(channels),
        labels=classes.names,
        label_map=written if classes.coloured else classes.values,
        find_cases=lambda folder: list(cases),
        root=(),
        read_image=read_image if pictures else None,
        read_label=classes.read_picture if pictures else None,
        in_place=True,
        advice="Name it with --labels NAME=VALUE, or correct the label.",
        about=about,
    )
