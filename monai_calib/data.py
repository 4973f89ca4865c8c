"""The list of cases of a converted data set, with errors that say how to get the data, and its share of a process."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["load_datalist", "share_of_rank"]

_SPLITS = ("training", "validation", "test")


def load_datalist(
    dataset_dir: str | Path, split: str, prepare: str = "a script of data_scripts/"
) -> list[dict[str, str]]:
    """Cases of one split of ``dataset_dir/datalist.json``, with full paths.

    Args:
        dataset_dir: folder written by a data script or by ``python -m monai_calib phantom``; it holds the images,
            the labels and ``datalist.json``, whose paths are relative to it.
        split: ``"training"``, ``"validation"`` or ``"test"``.
        prepare: the command that makes the folder; error messages show it.

    Returns:
        One ``{"image": path, "label": path, "case": name}`` per case, in the order of the file, with ``"subject"``
        where the list names whom the case was taken from: intervals and tests go by subject.

    Raises:
        FileNotFoundError: the folder, ``datalist.json`` or a file of the list is missing.
        ValueError: ``datalist.json`` is not JSON, or holds no cases for ``split``.

    Example:
        >>> load_datalist("nowhere", "test", prepare="python -m monai_calib phantom nowhere")
        Traceback (most recent call last):
        FileNotFoundError: there is no data folder 'nowhere'. Make it with: python -m monai_calib phantom nowhere ...
    """
    folder = Path(dataset_dir)
    advice = f"Make it with: {prepare} (and name its output folder with --dataset_dir)"
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no data folder {str(folder)!r}. {advice}")
    listing = folder / "datalist.json"
    if not listing.is_file():
        raise FileNotFoundError(f"the data folder {str(folder)!r} holds no datalist.json. {advice}")
    try:
        entries = json.loads(listing.read_text(encoding="utf-8")).get(split, [])
    except json.JSONDecodeError as error:
        raise ValueError(f"{listing} is not valid JSON ({error}). {advice}") from error
    if split not in _SPLITS or not entries:
        raise ValueError(f"{listing} lists no cases for {split!r}; expected one of {_SPLITS}. {advice}")
    cases = []
    for entry in entries:
        paths = {key: folder / entry[key] for key in ("image", "label")}
        for key, path in paths.items():
            if not path.is_file():
                raise FileNotFoundError(f"{listing} names the {key} {entry[key]!r}, which is missing. {advice}")
        whose = {"subject": str(entry["subject"])} if "subject" in entry else {}
        cases.append({"image": str(paths["image"]), "label": str(paths["label"]), "case": str(entry["case"]), **whose})
    return cases


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
            f"{count} cases for {world_size} processes: each needs at least one. Start at most {count} processes "
            "(--nproc_per_node, --nnodes)"
        )
    return range(count * rank // world_size, count * (rank + 1) // world_size)
