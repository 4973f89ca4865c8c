"""A page of slices with the labels' outlines, to see at a glance whether a conversion is sound."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from monai_calib.words import counted

from ..files import atomic_path
from .datalist import SPLITS

__all__ = ["write_contact_sheet"]

_COLUMNS, _ROWS = 6, 4


def _slice(folder: Path, entry: Mapping[str, Any]) -> tuple[np.ndarray, list[np.ndarray], float]:
    """The axial slice that holds most of the (first) label, seen with the patient's right and front in a fixed place.

    Returns:
        The picture, the label of each rater, and the height of a pixel by its width.
    """
    image, *labels = (_canonical(folder / path) for path in (_all(entry["image"])[0], *_all(entry["label"])))
    first = np.asanyarray(labels[0].dataobj)
    index = int((first > 0).sum(axis=(0, 1)).argmax()) if first.any() else first.shape[2] // 2
    step = labels[0].header.get_zooms()
    picture = np.asanyarray(image.dataobj)
    picture = picture[:, :, index] if picture.ndim == 3 else picture[:, :, index, 0]
    return picture.T, [np.asanyarray(label.dataobj)[:, :, index].T for label in labels], float(step[1] / step[0])


def _canonical(path: Path) -> Any:
    """The volume with axes to the right, anterior, superior; of two axes one slice."""
    image: Any = nib.load(path)
    if len(image.shape) < 3:
        image = image.__class__(np.asanyarray(image.dataobj)[..., None], image.affine)
    return nib.as_closest_canonical(image)


def _all(named: Any) -> list[str]:
    return named if isinstance(named, list) else [named]


def write_contact_sheet(folder: Path, datalist: Mapping[str, Any], path: Path) -> bool:
    """Draw up to 24 cases, spread evenly over the data set.

    The picture is optional: what hinders it, such as matplotlib missing or without a folder for its cache, is told in
    a line, and False returned.
    """
    if importlib.util.find_spec("matplotlib") is None:
        print('No contact sheet: matplotlib is not installed (pip install "monai_calib[report]").')
        return False
    try:
        _draw(folder, datalist, path)
    except Exception as error:  # matplotlib raises many kinds; a finished conversion does not end by one
        print(f"No contact sheet: {type(error).__name__}: {error}")
        return False
    return True


def _draw(folder: Path, datalist: Mapping[str, Any], path: Path) -> None:
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    entries = sorted((e for split in SPLITS for e in datalist[split]), key=lambda entry: entry["case"])
    count = min(len(entries), _COLUMNS * _ROWS)
    chosen = [entries[i * len(entries) // count] for i in range(count)]
    rows = -(-count // _COLUMNS)
    figure = Figure(figsize=(2.2 * _COLUMNS, 2.4 * rows + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    slices = "" if datalist.get("dimensions") == 2 else ", the slice with most of the label"
    figure.suptitle(f"{datalist['name']}: {count} of {counted(len(entries), 'case')}{slices}")
    for axes in (grid := figure.subplots(rows, _COLUMNS, squeeze=False)).flat:
        axes.axis("off")
    colour = colormaps["tab10" if len(datalist["labels"]) <= 11 else "tab20"]
    names = dict(enumerate(list(datalist["labels"].values())[1:], start=1))
    shown = [Line2D([], [], color=colour(value - 1), label=name) for value, name in names.items()]
    figure.legend(handles=shown, loc="outside lower center", ncols=min(len(shown), 8), fontsize=7, frameon=False)
    for entry, axes in zip(chosen, grid.flat, strict=False):
        picture, labels, aspect = _slice(folder, entry)
        low, high = np.percentile(picture, [1, 99])
        axes.imshow(picture, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), origin="lower", aspect=aspect)
        width = 0.8 if len(labels) == 1 else 0.4
        for values, value in product(labels, names):
            if (values == value).any():
                axes.contour(values == value, levels=[0.5], colors=[colour(value - 1)], linewidths=width)
        axes.set_title(entry["case"], fontsize=7)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=100)
