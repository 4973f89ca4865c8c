"""Measure stored maps against their labels into an evaluated folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from monai_calib.files import FileError, atomic_folder, folder_lock, read_json
from monai_calib.labels import top_class
from monai_calib.metrics.protocols import Protocol, by_region_for
from monai_calib.predictions.axes import SwappedAxes
from monai_calib.predictions.cases import IGNORED, StoredCase, StoredCases
from monai_calib.predictions.evaluate import StoredEvaluation
from monai_calib.predictions.folders import class_names
from monai_calib.predictions.lists import subjects_of
from monai_calib.predictions.settings import Settings
from monai_calib.progress import Counted
from monai_calib.version import __version__

__all__ = ["MeasuredMaps", "measure_maps"]


class MeasuredMaps(NamedTuple):
    """Result of :func:`measure_maps`: what was measured.

    Attributes:
        folder: the evaluated folder.
        summary: its summary.
        cases: how many there are.
        unmapped: labels without a map.
        format: of the maps.
        floored: share of all probabilities that a coarse file had rounded to 0.
    """

    folder: Path
    summary: Mapping[str, float]
    cases: int
    unmapped: Sequence[str]
    format: str
    floored: float


def measure_maps(
    settings: Settings,
    output: Path,
    protocols: Sequence[str | Protocol] | None = None,
    subjects: str | None = None,
    name: str | None = None,
    progress: Callable[[Counted[StoredCase]], Iterable[StoredCase]] = iter,
) -> MeasuredMaps:
    """Measure every map that has a label, one case in memory at a time, into ``output/eval``.

    Args:
        settings: where maps and labels lie, and how to read them.
        output: folder of the run; ``eval`` in it is written whole or not at all.
        protocols: see :class:`~monai_calib.metrics.protocols.Protocol`; by default ``paper`` and ``by_region``, of
            pictures and voxels of more than 2 mm ``by_region_px``.
        subjects: see :func:`~.lists.subjects_of`.
        name: what a report calls these predictions; the folder's name by default.
        progress: is given the cases, and gives them one by one, such as :func:`~monai_calib.progress.with_progress`.

    Raises: :class:`~monai_calib.files.FileError` naming what does not fit; nothing is then left of the new evaluation.
    """
    if settings.probabilities.resolve() == settings.labels.resolve():
        raise FileError(
            f"{settings.labels}: expected labels in a folder of their own, got that of the maps, whose segmentations "
            "are the network's. Name the folder of the true labels."
        )
    cases = StoredCases(settings)
    cases.subjects = subjects_of(cases.names, subjects)
    names = settings.classes.names or class_names(cases.maps)
    named = replace(settings.classes, names=names, values=settings.classes.values or tuple(range(len(names))))
    cases.settings = replace(settings, format=cases.maps.kind, axes=cases.maps.axes, classes=named)
    folder = output / "eval"
    _refuse_others(folder)
    run = {
        "loss_name": name or output.resolve().name,
        "split": "test",
        "maps": {**cases.settings.to_json(folder.resolve()), "version": __version__},
    }
    with _no_empty(output), folder_lock(folder, "measuring"), atomic_folder(folder) as partial:
        evaluation: StoredEvaluation | None = None
        swapped = SwappedAxes(cases.maps.axes)
        numbers = floored = 0
        for case in progress(cases):
            if evaluation is None:
                classes = named.named(len(case.probabilities))
                chosen = protocols or ("paper", by_region_for(cases.unit, case.spacing))
                evaluation = StoredEvaluation(partial, cases, classes, chosen, run)
            _expect_channels(case, evaluation)
            truth = (case.label > 0) & (case.label != IGNORED)
            swapped.add((top_class(case.probabilities) > 0).numpy(), truth.numpy())
            numbers += case.probabilities.numel()
            floored += case.floored
            evaluation.add(case)
            del case  # before the next is read
        assert evaluation is not None, "a folder without maps is refused"
        if settings.axes is None and (better := swapped.better()) is not None:
            raise FileError(
                f"{settings.probabilities}: expected maps that overlap with their labels, got maps that overlap much "
                f"better with axes swapped. Measure with --axes {better}, or, if the axes are right all the same, with "
                f"--axes {cases.maps.axes}."
            )
        summary = evaluation.close()
    return MeasuredMaps(folder, summary, len(cases), cases.unmapped, cases.maps.kind, floored / max(1, numbers))


@contextmanager
def _no_empty(folder: Path) -> Iterator[None]:
    """Leave no empty folder behind a failure."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise


def _expect_channels(case: StoredCase, evaluation: StoredEvaluation) -> None:
    expected = evaluation.evaluation.num_classes
    if len(case.probabilities) != expected:
        raise FileError(
            f"{case.found.file}: expected {expected} classes as in the first map, got {len(case.probabilities)}. "
            "Measure maps of different networks apart."
        )


def _refuse_others(folder: Path) -> None:
    """Raise where an evaluation of a network lies, which no run of this command would bring back."""
    path = folder / "calibration.json"
    if path.is_file():
        content = read_json(path, advice="Name another folder.")
        if not isinstance(content, Mapping) or "maps" not in content.get("run", {}):
            raise FileError(f"{path}: the evaluation of a network lies here already. Name another folder.")
