"""Find maps and labels in their folders, and pair them by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai_calib.datasets.case import case_of_file
from monai_calib.files import FileError
from monai_calib.predictions.axes import check_axes
from monai_calib.predictions.lists import some
from monai_calib.predictions.nifti import NiftiMaps, NiftiMapsPerClass
from monai_calib.predictions.npz import NpzMaps
from monai_calib.predictions.pictures import PictureMapsPerClass
from monai_calib.predictions.stored import MapFolder

__all__ = ["class_names", "find_images", "find_labels", "find_maps"]

_NIFTI = (".nii", ".nii.gz")
_LABELS = (*_NIFTI, ".mha", ".mhd", ".nrrd", ".png", ".tif", ".tiff", ".bmp")
_EXPECTED = "<case>.npz, <case>.nii.gz with classes on the fourth axis, or <case>_<class>.nii.gz or .png"
_OF_A_BUNDLE = re.compile(r"prob_(\d+)_(.+)")
"""What inference of a bundle puts behind the case: number and name of the class."""


def find_labels(folder: Path) -> dict[str, Path]:
    """Label files by case, sorted.

    Raises: :class:`~monai_calib.files.FileError` for a folder that is missing or holds none, or two files of one case.
    """
    found: dict[str, Path] = {}
    for path in _visible(folder, "labels", _LABELS):
        other = found.setdefault(case_of_file(path), path)
        if other != path:
            raise FileError(
                f"{path}: expected one label for case {case_of_file(path)}, got also {other.name}. Keep one."
            )
    if not found:
        raise FileError(f"{folder}: expected labels such as <case>.nii.gz, got none. Name the folder that holds them.")
    return found


def find_images(folder: Path, cases: Sequence[str]) -> dict[str, Path]:
    """Images by case, of nnU-Net's the first channel (``<case>_0000.nii.gz``).

    Raises: :class:`~monai_calib.files.FileError` for cases without one.
    """
    found = {case_of_file(path): path for path in _visible(folder, "images", _LABELS)}
    images = {case: found.get(case) or found.get(f"{case}_0000") for case in cases}
    missing = [case for case, path in images.items() if path is None]
    if missing:
        raise FileError(
            f"{folder}: expected an image <case>.nii.gz or <case>_0000.nii.gz for each case, got none for "
            f"{some(missing)}. Name another folder, or leave --images out."
        )
    return {case: path for case, path in images.items() if path is not None}


def find_maps(
    folder: Path,
    cases: Sequence[str],
    classes: Sequence[str] = (),
    axes: str | None = None,
    kind: str | None = None,
) -> MapFolder:
    """The maps of a folder, whatever their format.

    Args:
        folder: that holds them.
        cases: names of the labels: what a map can be called.
        classes: names of the classes, by which files per class may be called.
        axes: order of their axes; the format's own by default.
        kind: format, where it is known already.

    Raises: :class:`~monai_calib.files.FileError` for a folder that is missing or empty, maps without a label, names
        that do not match, and a class that is missing.
    """
    archives = _visible(folder, "probability maps", (".npz",))
    volumes = _visible(folder, "probability maps", _NIFTI)
    pictures = [] if volumes else _visible(folder, "probability maps", (".png",))
    below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    known = set(cases)
    made: MapFolder
    if archives and kind in (None, NpzMaps.kind):
        made = NpzMaps(folder, _one_each(archives), _axes(axes, NpzMaps.default_axes))
    elif volumes and (
        kind == NiftiMaps.kind or (kind is None and any(case_of_file(path) in known for path in volumes))
    ):
        made = NiftiMaps(folder, _one_each(volumes), _axes(axes, NiftiMaps.default_axes))
    else:
        files = volumes or pictures
        per_class = _by_suffix(files, known) if files else _by_folder(below)
        if not per_class:
            nothing = f"{folder}: expected probability maps ({_EXPECTED}), got none"
            if files:
                raise FileError(f"{nothing} that bears a label's name: {_names(files, known)}")
            raise FileError(
                f"{nothing}. Name the folder that holds them; nnU-Net writes them with --save_probabilities."
            )
        ordered = _in_class_order(per_class, classes, folder)
        form = PictureMapsPerClass if pictures else NiftiMapsPerClass
        made = form(folder, ordered, _axes(axes, form.default_axes))
    without = sorted(set(made.files) - known)
    if without and len(without) == len(made.files):
        raise FileError(f"{folder}: expected maps named as the labels, got none: {_names(list(made.files), known)}")
    if without:
        raise FileError(
            f"{folder}: expected a label for each map, got none for {some(without)}. Add the labels, or move these "
            "maps away."
        )
    return made


def class_names(maps: MapFolder) -> tuple[str, ...]:
    """Names of the classes, where a bundle's inference has put them into the names of the files; else none."""
    files = next(iter(maps.files.values()), ())
    found = [re.search(rf"_{_OF_A_BUNDLE.pattern}$", case_of_file(path)) for path in files]
    return tuple(match[2] for match in found if match) if len(files) > 1 and all(found) else ()


def _visible(folder: Path, what: str, suffixes: Sequence[str]) -> list[Path]:
    if not folder.is_dir():
        raise FileError(
            f"{folder}: expected a folder of {what}, got {'a file' if folder.exists() else 'nothing'}. Check the path."
        )
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".") and path.name.lower().endswith(tuple(suffixes))
    )


def _one_each(paths: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    found: dict[str, tuple[Path, ...]] = {}
    for path in paths:
        if (case := case_of_file(path)) in found:
            raise FileError(f"{path}: expected one map for case {case}, got also {found[case][0].name}. Keep one.")
        found[case] = (path,)
    return found


def _axes(given: str | None, usual: str) -> str:
    return check_axes(given) if given else usual


def _by_suffix(volumes: Sequence[Path], cases: set[str]) -> dict[str, dict[str, Path]]:
    """Of ``<case>_<class>``, the files by case and class; of several cases that fit, the longest.

    Where a bundle has written probabilities, its label and confidence maps lie beside them, and are left out.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in volumes:
        name = case_of_file(path)
        fitting = [case for case in _beginnings(name) if case in cases]
        if fitting:
            case = fitting[-1]
            found.setdefault(case, {})[name[len(case) :].lstrip("_.-")] = path
    of_a_bundle = {
        case: {suffix: path for suffix, path in files.items() if _OF_A_BUNDLE.fullmatch(suffix)}
        for case, files in found.items()
    }
    return of_a_bundle if any(of_a_bundle.values()) else found


def _beginnings(name: str) -> list[str]:
    return [name[: match.start()] for match in re.finditer(r"[_.-]", name)]


def _by_folder(folders: Sequence[Path]) -> dict[str, dict[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    for folder in folders:
        for path in _visible(folder, "probability maps", _NIFTI):
            found.setdefault(case_of_file(path), {})[folder.name] = path
    return found


def _in_class_order(
    found: Mapping[str, Mapping[str, Path]], classes: Sequence[str], folder: Path
) -> dict[str, tuple[Path, ...]]:
    """The files of each case in the order of the classes, which are told by name or else by number."""
    everything = {suffix for files in found.values() for suffix in files}
    if classes and everything <= set(classes):
        order = list(classes)
    else:
        number = _OF_A_BUNDLE if all(map(_OF_A_BUNDLE.fullmatch, everything)) else re.compile(r"(\d+)$")
        numbers = {suffix: int(match[1]) for suffix in everything if (match := number.search(suffix))}
        if len(numbers) < len(everything) or sorted(numbers.values()) != list(range(len(everything))):
            raise FileError(
                f"{folder}: expected one file per class, numbered from 0 or called by the names of --classes, got "
                f"{some(sorted(everything))}. Save the background's map too, and name the classes in order."
            )
        order = sorted(everything, key=lambda suffix: numbers[suffix])
    for case, files in found.items():
        missing = [suffix for suffix in order if suffix not in files]
        if missing:
            raise FileError(
                f"{folder}: case {case}: expected a map of each class ({', '.join(order)}), got none of "
                f"{', '.join(missing)}. Write the missing files, or move the case away."
            )
    return {case: tuple(files[suffix] for suffix in order) for case, files in sorted(found.items())}


def _names(found: Sequence[Path] | Sequence[str], cases: set[str]) -> str:
    maps = [case_of_file(path) if isinstance(path, Path) else path for path in found]
    return (
        f"maps {some(maps)}; labels {some(sorted(cases))}. Maps and labels are paired by their names without "
        "extension: rename one of the two."
    )
