"""Slices of the best and worst cases: truth, prediction, confidence, and where confidence and truth part."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_calib.metrics.regions import Region
from monai_calib.words import counted

from .columns import Column
from .comparison import Comparison
from .figures import COLOURS, figure_csv
from .runs import Run

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["CaseView", "Picture", "case_views", "class_colour", "data_address", "png"]

_MARGIN = 6
_OVERLAY = 0.55
# Pixels of a picture's longer side: the page would not grow legible by more, only large.
_LARGEST = 256
_NUM_WORST = 2
_SURE = 0.8


@dataclass(frozen=True)
class Picture:
    """A PNG as data address, its description, and its width over height in mm."""

    source: str
    alt: str
    aspect: float


@dataclass(frozen=True)
class CaseView:
    """One case: why it is shown, the image with the truth, and prediction, confidence and gap of each method.

    ``csv`` has what the pictures show in figures, a line a method.
    """

    case: str
    why: str
    image: Picture
    truth: Picture
    rows: tuple[tuple[str, str, tuple[Picture, Picture, Picture]], ...]
    csv: str


def case_views(comparison: Comparison) -> list[CaseView]:
    """The two worst cases by DSC and by the first calibration figure, and the best, as far as previews were kept."""
    views = []
    for case, why in _chosen_cases(comparison).items():
        view = _view(comparison, case, why)
        if view is not None:
            views.append(view)
    return views


def _chosen_cases(comparison: Comparison) -> dict[str, str]:
    chosen: dict[str, list[str]] = {}
    columns = [(column, True) for column in comparison.overlap_columns()[:1]]
    for protocol in comparison.protocols[:1]:
        columns += [
            (column, False)
            for column in comparison.calibration_columns(
                protocol, Region.parse(protocol.regions[0]), protocol.reductions[0]
            )[:1]
        ]
    for column, both_ends in columns:
        values = np.mean([comparison.case_values(method.runs, column) for method in comparison.methods], axis=0)
        if not np.isfinite(values).any():
            continue
        # "Good" grows with quality, so that its ends are best and worst whichever way the column points.
        good = np.where(np.isfinite(values), -values if column.lower_is_better else values, np.nan)
        order = np.argsort(good)[: int(np.isfinite(good).sum())].tolist()
        ends = list(zip(("worst", "second worst"), order[:_NUM_WORST], strict=False))
        if both_ends and len(order) > _NUM_WORST:
            ends.append(("best", order[-1]))
        for end, position in ends:
            reason = f"{end} {_where(column)} ({values[position]:.3f}, mean over all methods)"
            chosen.setdefault(comparison.cases[position], []).append(reason)
    return {case: "; ".join(reasons) for case, reasons in chosen.items()}


def _where(column: Column) -> str:
    region = column.metric.region if column.protocol else None
    return column.label if region is None else f"{column.label} in {region}"


def _view(comparison: Comparison, case: str, why: str) -> CaseView | None:
    shown: list[tuple[str, Run, dict[str, NDArray[Any]]]] = []
    for method in comparison.methods:
        for run in method.runs:
            arrays = run.preview(case)
            if arrays is not None:
                shown.append((method.label, run, arrays))
                break
    shown = [item for item in shown if item[2]["label"].shape == shown[0][2]["label"].shape]
    if not shown:
        return None
    first = shown[0][2]
    box = _thinned(_box([np.maximum(arrays["label"], arrays["prediction"]) for _, _, arrays in shown]), first)
    turn = np.rot90 if len(first["spacing"]) == 3 else np.transpose
    truth = turn(first["label"][box])
    height, width = truth.shape
    aspect = float(width * first["spacing"][0] / (height * first["spacing"][1]))
    grey = np.repeat(turn(first["image"][box])[..., None] / 255.0, 3, axis=-1)
    rows: list[tuple[str, str, tuple[Picture, Picture, Picture]]] = []
    told: list[list[Any]] = []
    for label, run, arrays in shown:
        names = f"of {label} on {case}"
        decision, confidence = turn(arrays["prediction"][box]), turn(arrays["confidence"][box]) / 100.0
        wrong = decision != truth
        pictures = (
            Picture(png(_overlay(grey, decision)), f"Prediction {names}: {_dice_in_words(truth, decision)}.", aspect),
            Picture(png(_confidence_colours(confidence, len(comparison.class_names))),
                    f"Confidence {names}: mean {confidence.mean():.2f} in this slice.", aspect),
            Picture(png(_gap_colours(confidence, ~wrong)),
                    f"Confidence minus correctness {names}: {_gap_in_words(confidence, wrong)}.", aspect),
        )  # fmt: skip
        rows.append((label, f"seed {run.seed}", pictures))
        sure = int((wrong & (confidence > _SURE)).sum())
        told.append([label, run.seed, _dice(truth, decision), confidence.mean(), int(wrong.sum()), sure, wrong.size])
    return CaseView(
        case,
        why,
        Picture(png(grey), f"Image slice of {case}.", aspect),
        Picture(png(_overlay(grey, truth)), f"True labels of {case}: {_areas(truth, comparison.class_names)}.", aspect),
        tuple(rows),
        figure_csv(
            ["method", "seed", "foreground Dice", "mean confidence", "wrong pixels", "wrong and sure", "pixels"], told
        ),
    )


def _thinned(box: tuple[slice, slice], arrays: dict[str, NDArray[Any]]) -> tuple[slice, slice]:
    """The box with every n-th row and column, so that a picture keeps its shape and a bearable size."""
    step = -(-max(arrays["label"][box].shape) // _LARGEST)
    return slice(box[0].start, box[0].stop, step), slice(box[1].start, box[1].stop, step)


def _box(labels: Sequence[NDArray[Any]]) -> tuple[slice, slice]:
    """The part of the slice that holds any label, with a margin; the whole slice if there is none."""
    anything = np.any([label > 0 for label in labels], axis=0)
    if not anything.any():
        return slice(None), slice(None)
    bounds = []
    for axis in (0, 1):
        where = np.flatnonzero(anything.any(axis=1 - axis))
        margin = max(_MARGIN, int(0.2 * (where[-1] - where[0])))
        bounds.append(slice(max(int(where[0]) - margin, 0), int(where[-1]) + margin + 1))
    return bounds[0], bounds[1]


def _rgb(colour: str) -> NDArray[np.float64]:
    return np.array([int(colour[start : start + 2], 16) / 255.0 for start in (1, 3, 5)])


def class_colour(index: int) -> str:
    """The colour of a class in the overlays; the background has none."""
    return COLOURS[(index - 1) % len(COLOURS)]


def _overlay(grey: NDArray[np.float64], labels: NDArray[Any]) -> NDArray[np.float64]:
    picture = grey.copy()
    for index in np.unique(labels[labels > 0]):
        inside = labels == index
        picture[inside] = (1 - _OVERLAY) * picture[inside] + _OVERLAY * _rgb(class_colour(int(index)))
    return picture


def _confidence_colours(confidence: NDArray[np.float64], num_classes: int) -> NDArray[np.float64]:
    """Cividis from chance to certainty."""
    from plotly.colors import sequential

    stops = np.array([_rgb(colour) for colour in sequential.Cividis])
    chance = 1.0 / num_classes
    place = ((confidence - chance) / (1 - chance)).clip(0, 1) * (len(stops) - 1)
    return np.stack([np.interp(place, np.arange(len(stops)), stops[:, c]) for c in range(3)], axis=-1)


def _gap_colours(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> NDArray[np.float64]:
    """White where confidence meets truth, orange where it is sure and wrong, blue where it is right and unsure."""
    gap = confidence - correct
    ends = np.where((gap > 0)[..., None], _rgb(COLOURS[1]), _rgb(COLOURS[0]))
    share = np.abs(gap)[..., None]
    return (1 - share) + share * ends


def png(picture: NDArray[np.float64]) -> str:
    """A picture of red, green and blue between 0 and 1 as data address."""
    from PIL import Image

    image = Image.fromarray(np.rint(255 * picture).astype(np.uint8))
    # A palette holds every shade of the maps, and takes a third of the text.
    return data_address(image.quantize(256, dither=Image.Dither.NONE))


def data_address(image: Image.Image) -> str:
    """An image as the address of its PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _areas(labels: NDArray[Any], names: Sequence[str]) -> str:
    sizes = [int((labels == index).sum()) for index in range(1, len(names))]
    return ", ".join(f"{name} {counted(size, 'pixel')}" for name, size in zip(names[1:], sizes, strict=True))


def _dice_in_words(truth: NDArray[Any], decision: NDArray[Any]) -> str:
    dice = _dice(truth, decision)
    if np.isnan(dice):
        return "no foreground in truth or prediction"
    return f"Dice of the foreground in this slice {dice:.2f}"


def _dice(truth: NDArray[Any], decision: NDArray[Any]) -> float:
    """Of all foreground voxels with their right class; NaN without any."""
    size = int((truth > 0).sum() + (decision > 0).sum())
    return 2 * int(((truth > 0) & (truth == decision)).sum()) / size if size else float("nan")


def _gap_in_words(confidence: NDArray[np.float64], wrong: NDArray[np.bool_]) -> str:
    sure = int(((confidence > _SURE) & wrong).sum())
    return f"{counted(sure, 'pixel')} wrong at a confidence above {_SURE}, {int(wrong.sum())} wrong in all"
