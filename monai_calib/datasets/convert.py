"""Turn a download into a folder of NIfTI files with a datalist.json: all of it, or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ..files import atomic_path, read_json, write_json, write_text
from ..lock import FolderLock
from .archives import find_root, open_source
from .case import SAID_MOVED
from .checksums import sha256
from .contact_sheet import write_contact_sheet
from .datalist import write_datalist
from .dataset import Case, Dataset, SourceError, Volume, name_problems
from .split import split_cases
from .summary import summarise, write_table
from .volumes import check_same_grid, count_values, read_channels, read_volume, remap_labels, spacing, write_nifti

__all__ = ["convert"]

Progress = Callable[[Sequence[Case]], Iterable[Case]]


def _reoriented(volume: Volume) -> Volume:
    turned = nib.as_closest_canonical(nib.Nifti1Image(volume.array, volume.affine))
    return Volume(np.asanyarray(turned.dataobj), np.asarray(turned.affine))


def _copy(source: Path, target: Path) -> None:
    """Copy a file that needs no change. A link would do, until someone edits the copy and with it the download."""
    with atomic_path(target) as partial:
        shutil.copyfile(source, partial)


def _check_channels(dataset: Dataset, image: Volume, path: Path) -> None:
    channels = len(dataset.modality)
    expected = "3 axes" if channels == 1 else f"4 axes with {channels} channels on the last"
    if (image.array.ndim == 3) != (channels == 1) or (channels > 1 and image.array.shape[3:] != (channels,)):
        raise SourceError(f"{path}: expected an image of {expected}, got shape {image.array.shape}.")


def _convert_case(dataset: Dataset, case: Case, output: Path) -> dict[str, Any]:
    """Write image and label of a case; returns its row of the datalist and what the summary needs."""
    image = dataset.read_image(case) if dataset.read_image else read_channels(case.images)
    _check_channels(dataset, image, case.images[0])
    label = dataset.read_label(case) if dataset.read_label else read_volume(case.label[0])
    moved = check_same_grid(image, label, case.images[0], case.label[0])
    label_map = dataset.label_map or {value: value for value in range(len(dataset.labels))}
    if label.array.ndim > 3 and label.array.shape[3:] != (1,):
        raise SourceError(f"{case.label[0]}: expected a label of 3 axes, got shape {label.array.shape}.")
    values = remap_labels(label.array.reshape(label.array.shape[:3]), label_map, case.label[0])
    whole = (
        label.as_stored
        and moved <= SAID_MOVED
        and label.array.dtype.kind in "iu"
        and label.array.ndim == 3
        and all(k == v for k, v in label_map.items())
    )
    files = {"image": f"imagesTr/{case.name}.nii.gz", "label": f"labelsTr/{case.name}.nii.gz"}
    plain = not dataset.reorient and case.images[0].name.endswith(".nii.gz")
    if plain and image.as_stored and dataset.read_image is None and len(case.images) == 1:
        _copy(case.images[0], output / files["image"])
    else:
        write_nifti(_reoriented(image) if dataset.reorient else image, output / files["image"], dataset.title)
    if plain and dataset.read_label is None and whole and case.label[0].name.endswith(".nii.gz"):
        _copy(case.label[0], output / files["label"])
    else:
        label = Volume(values, image.affine)
        write_nifti(_reoriented(label) if dataset.reorient else label, output / files["label"], dataset.title)
    written = nib.nifti1.load(output / files["image"])
    return {
        "entry": {
            **files,
            "case": case.name,
            "subject": case.subject,
            **({"group": case.group} if case.group else {}),
            "sha256": {kind: sha256(output / file) for kind, file in files.items()},
        },
        "shape": [int(size) for size in written.shape[:3]],
        "spacing": [round(size, 4) for size in spacing(np.asarray(written.affine))],
        "voxels": count_values(values)[: len(dataset.labels)].tolist(),
    }


def _convert_or_resume(dataset: Dataset, case: Case, output: Path) -> dict[str, Any]:
    """Convert a case unless an interrupted run did it from the same files; the record beside it says so."""
    files = [*case.images, *case.label]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise SourceError(f"{missing[0]}: missing. Unpack the official archive again, it may have been interrupted.")
    voxels_beside = [path.with_suffix(suffix) for path in files for suffix in (".raw", ".zraw")]
    source = sha256(*files, *(path for path in voxels_beside if path.is_file()))
    record_path = output / "records" / f"{case.name}.json"
    if record_path.is_file():
        record: dict[str, Any] = read_json(record_path)
        sums = record["entry"]["sha256"]
        written = {kind: output / record["entry"][kind] for kind in sums}
        if record["source"] == source and all(
            file.is_file() and sha256(file) == sums[kind] for kind, file in written.items()
        ):
            return record
    record = {"source": source, **_convert_case(dataset, case, output)}
    write_json(record_path, record)
    return record


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
    output: Path,
    seed: int,
    fractions: Sequence[float],
    exclude: Sequence[str],
    progress: Progress,
) -> str:
    for folder in ("imagesTr", "labelsTr", "records"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    records, problems = {}, []
    for case in progress(cases):
        try:
            records[case.name] = _convert_or_resume(dataset, case, output)
        except SourceError as error:
            problems.append(f"{case.name}: {error}")
    if problems:
        raise name_problems(problems, f"{len(problems)} of {len(cases)} cases cannot be used; nothing was written")
    splits = split_cases(cases, fractions, seed)
    datalist = {
        "name": dataset.title,
        "description": dataset.description,
        "licence": dataset.licence,
        "modality": {str(channel): name for channel, name in enumerate(dataset.modality)},
        "labels": {str(value): name for value, name in enumerate(dataset.labels)},
        "seed": seed,
        "fractions": list(fractions),
        "excluded": sorted(exclude),
        **{split: [records[case.name]["entry"] for case in chosen] for split, chosen in splits.items()},
    }
    write_datalist(output / "datalist.json", datalist)
    write_table(datalist, records, output / "cases.csv")
    text = summarise(datalist, records, dataset.cases)
    write_text(output / "summary.txt", text)
    write_contact_sheet(output, datalist, output / "contact_sheet.png")
    wanted = {
        Path(entry[kind]).name for record in records.values() for entry in [record["entry"]] for kind in entry["sha256"]
    }
    for folder in ("imagesTr", "labelsTr"):  # what an interrupted run with other cases left
        for file in (output / folder).iterdir():
            if file.name not in wanted:
                file.unlink()
    shutil.rmtree(output / "records")
    return text


def _plainly(cases: Sequence[Case]) -> Iterator[Case]:
    yield from cases


def convert(
    dataset: Dataset,
    source: Path,
    output: Path,
    seed: int = 0,
    fractions: Sequence[float] | None = None,
    exclude: Sequence[str] = (),
    progress: Progress = _plainly,
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
    source, output = source.absolute(), output.absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SourceError(f"{output} is not an empty folder: name a new one, or verify this one with --check.")
    if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        raise SourceError(
            f"{output} lies inside the download {source}, which is never written to; choose another place."
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.parent / f".{output.name}.partial"
    with FolderLock(partial, "a conversion") as lock:
        try:
            with open_source(source, output.parent / f".{output.name}.unpacked") as folder:
                cases = _find_cases(dataset, folder, exclude)
                text = _write_all(dataset, cases, partial, seed, fractions or dataset.fractions, exclude, progress)
            for path in partial.glob(f"{lock.path.name}*"):
                path.unlink()
            os.replace(partial, output)
        except Exception:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return text
