"""Turn a download into a folder of NIfTI files with a datalist.json: all of it, or nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from monai_calib.words import counted

from ..files import replace_folder, write_text
from ..lock import FolderLock
from .archives import find_root, open_source
from .checksums import files_of
from .contact_sheet import write_contact_sheet
from .convert_case import convert_or_resume
from .datalist import write_datalist
from .dataset import Case, Dataset, SourceError, name_problems
from .split import SPLITS, split_cases
from .summary import summarise, write_table

__all__ = ["Progress", "check_output", "convert", "plainly", "refusal", "write_cases"]

Progress = Callable[[Sequence[Case]], Iterable[Case]]
Split = Mapping[str, Sequence[Case]]


def plainly(cases: Sequence[Case]) -> Iterator[Case]:
    """The cases without a progress bar."""
    yield from cases


def convert(
    dataset: Dataset,
    source: Path,
    output: Path,
    seed: int = 0,
    fractions: Sequence[float] | None = None,
    exclude: Sequence[str] = (),
    progress: Progress = plainly,
) -> str:
    """Convert a download and return the summary that was also written to ``output/summary.txt``.

    Writes ``imagesTr/``, ``labelsTr/``, ``datalist.json`` (the splits, with a checksum of each file), ``cases.csv``,
    ``summary.txt`` and, with matplotlib, ``contact_sheet.png``. All is built in ``.<output>.partial`` beside the
    output and moved there at the end: on an error nothing is left behind, after an interruption the same call goes
    on where it stopped. The source is only read.

    Args:
        dataset: what is particular to the data set.
        source: the download, a folder or an archive.
        output: a folder that does not exist yet, or is empty.
        seed: which split.
        fractions: shares of training, validation and test, by default the data set's own.
        exclude: names of cases to leave out; recorded in the datalist.
        progress: wraps the sequence of cases, for a progress bar.

    Raises: :class:`SourceError` that lists everything wrong with the download.
    """
    source, output = source.absolute(), output.resolve()
    check_output(output, [source])
    shares = fractions or dataset.fractions
    with _partial(output) as partial, open_source(source, output.parent / f".{output.name}.unpacked") as folder:
        cases = _find_cases(dataset, folder, exclude)
        about = {"seed": seed, "fractions": list(shares), "excluded": sorted(exclude)}
        text = _write_all(dataset, cases, [split_cases(cases, shares, seed)], partial, about, progress)
    return text


def write_cases(
    dataset: Dataset,
    splits: Sequence[Split],
    output: Path,
    about: Mapping[str, Any],
    problems: Sequence[str] = (),
    notes: Sequence[str] = (),
    progress: Progress = plainly,
) -> str:
    """Write cases that are found and split already, as :func:`convert` does; a folder at ``output`` is replaced.

    Args:
        dataset: what is particular to the data set.
        splits: the lists of ``datalist.json``; of several, all of the same cases, the others go to ``fold_<k>``.
        output: the folder to write.
        about: keys of the datalist on how it was split.
        problems: found before; told together with those that reading the files brings up.
        notes: lines to beware of, for the end of the summary.
        progress: wraps the sequence of cases, for a progress bar.
    """
    cases = sorted((case for split in SPLITS for case in splits[0][split]), key=lambda case: case.name)
    with _partial(output) as partial:
        return _write_all(dataset, cases, splits, partial, about, progress, problems, notes)


def refusal(problems: Sequence[str]) -> SourceError:
    """One error of all problems."""
    return name_problems(problems, f"{len(problems)} problem{'s'[: len(problems) > 1]}; nothing was written")


def check_output(output: Path, sources: Sequence[Path], overwrite: bool | None = None) -> None:
    """Refuse an output that holds something, or that lies inside a source; None where it cannot be asked to replace.

    Raises: :class:`SourceError` that says what to do.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        if not overwrite:
            replace = "" if overwrite is None else "replace it with --overwrite True, "
            raise SourceError(
                f"{output} is not an empty folder: name a new one, {replace}or verify this one with --check."
            )
        if not (output / "datalist.json").is_file():
            raise SourceError(f"{output} holds no datalist.json, so it is not replaced: name a new folder.")
    for source in sources:
        if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
            raise SourceError(
                f"{output} lies inside the download {source}, which is never written to; choose another place."
            )


@contextmanager
def _partial(output: Path) -> Iterator[Path]:
    """The folder that takes the output's place when the block ends well; interrupted, it stays for the next run."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.parent / f".{output.name}.partial"
    with FolderLock(partial, "a conversion") as lock:
        try:
            yield partial
            for path in partial.glob(f"{lock.path.name}*"):
                path.unlink()
            replace_folder(partial, output)
        except Exception:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _find_cases(dataset: Dataset, folder: Path, exclude: Sequence[str]) -> list[Case]:
    cases = sorted(dataset.find_cases(find_root(folder, dataset.root, dataset.layout)), key=lambda case: case.name)
    names = {case.name for case in cases}
    if len(names) < len(cases):
        twice = sorted(name for name in names if sum(case.name == name for case in cases) > 1)
        raise SourceError(f"{folder}: holds these cases more than once: {', '.join(twice[:10])}.")
    unknown = sorted(set(exclude) - names)
    if unknown:
        raise SourceError(f"--exclude names no case of {dataset.title}: {', '.join(unknown)}.")
    cases = [case for case in cases if case.name not in exclude]
    if not cases:
        raise SourceError(f"{folder}: no case found; expected {dataset.layout}")
    return cases


def _write_all(
    dataset: Dataset,
    cases: Sequence[Case],
    splits: Sequence[Split],
    output: Path,
    about: Mapping[str, Any],
    progress: Progress,
    known: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> str:
    for folder in ("imagesTr", "labelsTr", "records"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    records, problems = {}, []
    for case in progress(cases):
        try:
            records[case.name] = convert_or_resume(dataset, case, output)
        except SourceError as error:
            problems.append(f"{case.name}: {error}")
    if known:
        raise refusal([*known, *problems])
    if problems:
        raise name_problems(
            problems, f"{len(problems)} of {counted(len(cases), 'case')} cannot be used; nothing was written"
        )
    described = {
        "name": dataset.title,
        "description": dataset.description,
        "licence": dataset.licence,
        "modality": {str(channel): name for channel, name in enumerate(dataset.modality)},
        "labels": {str(value): name for value, name in enumerate(dataset.labels)},
        **dataset.about,
        **about,
    }
    entries = {name: record["entry"] for name, record in records.items()}
    lists = [{name: [entries[case.name] for case in split[name]] for name in SPLITS} for split in splits]
    datalist = {**described, **lists[0]}
    write_datalist(output / "datalist.json", datalist)
    for number, chosen in enumerate(lists if len(lists) > 1 else []):
        below = {name: [_from_below(entry) for entry in chosen[name]] for name in SPLITS}
        write_datalist(output / f"fold_{number}" / "datalist.json", {**described, "fold": number, **below})
    write_table(datalist, records, output / "cases.csv")
    text = summarise(datalist, records, dataset.cases)
    text += "".join(f"\nBeware: {note}\n" for note in [*notes, *_copies(entries), *_absent(datalist, records)])
    write_text(output / "summary.txt", text)
    write_contact_sheet(output, datalist, output / "contact_sheet.png")
    wanted = {path for entry in entries.values() for path, _ in files_of(entry, output)}
    for folder in ("imagesTr", "labelsTr"):  # what an interrupted run with other cases left
        for file in (output / folder).iterdir():
            if file not in wanted:
                file.unlink()
        if not any((output / folder).iterdir()):
            (output / folder).rmdir()
    shutil.rmtree(output / "records")
    return text


def _from_below(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry with its paths as seen from a folder below."""

    def below(named: Any) -> Any:
        return [below(name) for name in named] if isinstance(named, list) else str(PurePosixPath("..") / named)

    return {**entry, **{kind: below(entry[kind]) for kind in entry["sha256"]}}


def _absent(datalist: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each class that no case of a split bears."""
    lines = []
    for value, name in enumerate(datalist["labels"].values()):
        bare = [
            split
            for split in SPLITS
            if datalist[split] and not any(records[entry["case"]]["voxels"][value] for entry in datalist[split])
        ]
        if bare:
            lines.append(f"{name} is in no case of {', '.join(bare)}: no figure of it there means anything.")
    return lines


def _copies(entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line on images that are the same file in several subjects."""
    holders: dict[str, dict[str, str]] = {}
    for name, entry in entries.items():
        holders.setdefault(str(entry["sha256"]["image"]), {}).setdefault(entry["subject"], name)
    twice = [" = ".join(names.values()) for names in holders.values() if len(names) > 1]
    if not twice:
        return []
    count = "1 image is" if len(twice) == 1 else f"{len(twice)} images are"
    return [
        f"{count} the same file in several subjects ({', '.join(twice[:5])}) and may be in two "
        "splits. Leave the copies out with --exclude, or give them one patient."
    ]
