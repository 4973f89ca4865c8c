"""The list of cases of a converted data set, with errors that say how to get the data."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["load_datalist"]

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
        One ``{"image": path, "label": path, "case": name}`` per case, in the order of the file.

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
        cases.append({"image": str(paths["image"]), "label": str(paths["label"]), "case": str(entry["case"])})
    return cases
