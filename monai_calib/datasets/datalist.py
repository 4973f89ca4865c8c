"""The list of cases of a data set, ``datalist.json``: read and check it, write it, share it out to processes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_calib.words import counted

from ..files import read_json, write_json
from .case import file_safe, unique_names

__all__ = ["RATER_LABELS", "SPLITS", "has_raters", "load_datalist", "read_datalist", "share_of_rank", "write_datalist"]

SPLITS = ("training", "validation", "test")
RATER_LABELS = ("sample", "mean")


def load_datalist(
    dataset_dir: str | Path,
    split: str,
    prepare: str = "python -m monai_calib prepare SOURCE OUT",
    needs_label: bool = True,
    rater_labels: str = "sample",
    also: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Cases of one split of ``dataset_dir/datalist.json``, with full paths.

    MONAI's usual forms are accepted: ``{"image": path, "label": path}``, a list of image files for the channels,
    absolute paths, and paths alone in lists without labels, such as ``test`` of the Medical Segmentation Decathlon.
    An entry with a list of labels, one a rater, becomes one case per rater, all of one subject, or with
    ``rater_labels="mean"`` one case with all of them.

    Args:
        dataset_dir: folder written by ``python -m monai_calib prepare``, a data script or ``python -m monai_calib
            phantom``; it holds ``datalist.json``, whose paths are relative to it, or absolute.
        split: ``"training"``, ``"validation"`` or ``"test"``.
        prepare: the command that makes the folder; error messages show it.
        needs_label: whether every case must have a label; without, entries may be paths alone.
        rater_labels: ``"sample"``, each rater's label a case of its own, so that an epoch sees every rater once; or
            ``"mean"``, one case with the list of labels, for :class:`~monai_calib.transforms.MeanLabeld` or
            :class:`~monai_calib.transforms.KeepRatersd` behind :class:`~monai_calib.transforms.LoadCased`.
        also: keys of further files that every entry names, such as the phantom's ``posterior``.

    Returns:
        One ``{"image": path, "label": path, "case": name}`` per case, in the order of the file, with ``"subject"``
        where the list names whom the case was taken from: intervals and tests go by subject. The name is the list's
        ``case``, else the image file's, with its folders in front where files of the list share a name; of several
        raters with the rater's name behind (of ``raters``, else the number), and without a subject the image is it.

    Raises:
        FileNotFoundError: the folder, ``datalist.json`` or a file of the list is missing.
        ValueError: ``datalist.json`` is not JSON, holds no cases for ``split``, or an entry is not as expected; names
            the file, the split, the number of the entry (from 0) and the key.

    Example:
        >>> load_datalist("nowhere", "test", prepare="python -m monai_calib phantom nowhere")
        Traceback (most recent call last):
        FileNotFoundError: there is no data folder 'nowhere'. Make it with: python -m monai_calib phantom nowhere...
    """
    if rater_labels not in RATER_LABELS:
        raise ValueError(f"rater_labels: expected one of {', '.join(RATER_LABELS)}, got {rater_labels!r}.")
    folder = Path(dataset_dir)
    advice = f"Make it with: {prepare}, and name the folder that it wrote."
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no data folder {str(folder)!r}. {advice}")
    listing = folder / "datalist.json"
    if not listing.is_file():
        raise FileNotFoundError(f"the data folder {str(folder)!r} holds no datalist.json. {advice}")
    content = read_datalist(listing, advice)
    entries = content.get(split)
    if split not in SPLITS or not isinstance(entries, list) or not entries:
        there = [f"{name} ({len(content[name])})" for name in SPLITS if isinstance(content.get(name), list)]
        raise ValueError(
            f"{listing} lists no cases for {split!r}; expected one of {SPLITS}, "
            f"and there are {', '.join(there) or 'none of them'}. {advice}"
        )
    names = _names(content, listing)
    cases = []
    for number, entry in enumerate(entries):
        where = f"{listing}: {split}, entry {number}"
        case = {**_checked_entry(entry, folder, where, needs_label, advice), "case": names[split, number]}
        case |= {key: _files(entry.get(key), folder, f"{where}, {key!r}", advice) for key in also}
        by_rater = _by_rater({**case, **_subject(entry, where)}, entry, where)
        cases += by_rater if rater_labels == "sample" else [_together(case, by_rater)]
    twice = sorted(name for name, count in Counter(case["case"] for case in cases).items() if count > 1)
    if twice:
        raise ValueError(
            f"{listing}: {split}, 'case': expected a name of its own for each entry, got {', '.join(twice[:5])} more "
            "than once. Files and tables are named by it: make the names differ."
        )
    return cases


def read_datalist(listing: str | Path, advice: str = "") -> dict[str, Any]:
    """The content of a datalist: a mapping with lists of cases under the names of the splits.

    Raises: ``ValueError`` naming the file if it cannot be read as JSON or is something else, such as a list alone.
    """
    content = read_json(listing, advice=advice)
    if not isinstance(content, dict):
        raise ValueError(
            f"{listing}: expected an object with the lists {', '.join(map(repr, SPLITS))}, got {_kind(content)}. "
            f"Put the cases under the name of their split. {advice}".rstrip()
        )
    return content


def write_datalist(listing: str | Path, content: Mapping[str, Any]) -> None:
    """Write a datalist in one step.

    Raises: ``ValueError`` if it lacks one of the lists.
    """
    missing = [split for split in SPLITS if not isinstance(content.get(split), Sequence)]
    if missing:
        raise ValueError(f"{listing}: expected the lists {', '.join(SPLITS)}, got none for {', '.join(missing)}.")
    write_json(listing, content)


def has_raters(cases: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a case of :func:`load_datalist` has the labels of several raters.

    Example:
        >>> has_raters([{"label": "a.nii.gz"}, {"label": ["b_ann.nii.gz", "b_ben.nii.gz"]}])
        True
    """
    return any(isinstance(case.get("label"), list) for case in cases)


def share_of_rank(count: int, rank: int, world_size: int) -> range:
    """Numbers of the cases that one process of several evaluates, as the ``sampler`` of its loader.

    Shares are contiguous, so that what is gathered in the order of the ranks stands in the order of the list: figures
    and files are then those of one process, to the last digit. They differ by at most one case.

    Args:
        count: cases in the list.
        rank: number of this process.
        world_size: number of processes.

    Raises:
        ValueError: fewer cases than processes; MONAI's evaluator skips an empty loader, and the others would wait.

    Example:
        >>> [list(share_of_rank(5, rank, 2)) for rank in range(2)]
        [[0, 1], [2, 3, 4]]
    """
    if count < world_size:
        raise ValueError(
            f"{counted(count, 'case')} for {world_size} processes: each needs at least one. Start at most "
            f"{counted(count, 'process')} (--nproc_per_node, --nnodes)"
        )
    return range(count * rank // world_size, count * (rank + 1) // world_size)


def _checked_entry(entry: Any, folder: Path, where: str, needs_label: bool, advice: str) -> dict[str, Any]:
    if isinstance(entry, str) and not needs_label:
        entry = {"image": entry}
    if not isinstance(entry, Mapping):
        meant = " without a label" if isinstance(entry, str) else ""
        raise ValueError(
            f"{where}: expected {{'image': path, 'label': path}}, got {_kind(entry)}{meant}. {advice}".rstrip()
        )
    case: dict[str, Any] = {"image": _files(entry.get("image"), folder, f"{where}, 'image'", advice)}
    if "label" in entry or needs_label:
        case["label"] = _files(entry.get("label"), folder, f"{where}, 'label'", advice)
    return case


def _by_rater(case: dict[str, Any], entry: Any, where: str) -> list[dict[str, Any]]:
    """The case once per rater, where it has a list of labels."""
    if not isinstance(case.get("label"), list):
        return [case]
    count = len(case["label"])
    raters = entry.get("raters", [str(number + 1) for number in range(count)])
    named = isinstance(raters, list) and all(isinstance(rater, (str, int)) and str(rater).strip() for rater in raters)
    if not named or len({str(rater) for rater in raters}) != count or len(raters) != count:
        raise ValueError(
            f"{where}, 'raters': expected {count} different names, one per label, got {_kind(raters)}. Name them, or "
            "leave 'raters' out."
        )
    return [
        {
            **case,
            "label": label,
            "case": f"{case['case']}_{file_safe(rater)}",
            "subject": case.get("subject", case["case"]),
        }
        for label, rater in zip(case["label"], raters, strict=True)
    ]


def _together(case: dict[str, Any], by_rater: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One case of all its raters, which are checked already; a list of one label is that label."""
    labels = [one.get("label") for one in by_rater]
    shared = {key: value for key, value in by_rater[0].items() if key not in ("label", "case")}
    return {
        **shared,
        **({} if labels[0] is None else {"label": labels if len(labels) > 1 else labels[0]}),
        "case": case["case"],
    }


def _files(named: Any, folder: Path, where: str, advice: str) -> Any:
    """The full path, or paths, of what an entry names."""
    if isinstance(named, list) and named:
        return [_files(name, folder, f"{where}[{number}]", advice) for number, name in enumerate(named)]
    if not isinstance(named, str) or not named.strip() or "\0" in named:
        raise ValueError(f"{where}: expected a path, got {_kind(named)}. {advice}")
    path = folder / named
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{where}: names {named!r}, which is missing. {advice}")
    return str(path)


def _subject(entry: Any, where: str) -> dict[str, str]:
    subject = entry.get("subject") if isinstance(entry, Mapping) else None
    if subject is None:
        return {}
    if isinstance(subject, bool) or not isinstance(subject, (str, int, float)) or not str(subject).strip():
        raise ValueError(f"{where}, 'subject': expected a name or a number, got {_kind(subject)}.")
    return {"subject": str(subject)}


def _names(content: Mapping[str, Any], listing: Path) -> dict[tuple[str, int], str]:
    """The name of every entry of every split; a case is called the same whichever split is read."""
    names: dict[tuple[str, int], str] = {}
    unnamed: dict[tuple[str, int], str] = {}
    for split in SPLITS:
        entries = content.get(split)
        for number, entry in enumerate(entries if isinstance(entries, list) else []):
            given = entry.get("case") if isinstance(entry, Mapping) else None
            image = entry.get("image") if isinstance(entry, Mapping) else entry
            first = image[0] if isinstance(image, list) and image else image
            if isinstance(given, (str, int)) and not isinstance(given, bool) and str(given).strip():
                names[split, number] = file_safe(given)
            elif given is not None:
                raise ValueError(f"{listing}: {split}, entry {number}, 'case': expected a name, got {_kind(given)}.")
            elif isinstance(first, str):
                unnamed[split, number] = first
            else:
                unnamed[split, number] = f"{split}_{number}"  # faulty; its own split says so
    taken = set(names.values())
    for place, name in zip(unnamed, unique_names(list(unnamed.values())), strict=True):
        while name in taken:
            name = f"{name}_"
        names[place] = name
        taken.add(name)
    return names


def _kind(value: Any) -> str:
    """Describe a JSON value in few words."""
    if value is None:
        return "nothing"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return f"an object with {', '.join(map(repr, list(value)[:4])) or 'nothing in it'}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
