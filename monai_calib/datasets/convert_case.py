"""Write image and label of one case as NIfTI, or find that they can stay as they are."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ..files import atomic_path, read_json, write_json
from .case import SAID_MOVED
from .checksums import files_of, sha256
from .dataset import Case, Dataset, SourceError, Volume
from .volumes import check_same_grid, count_values, read_channels, read_volume, remap_labels, spacing, write_nifti

__all__ = ["convert_or_resume"]

_NIFTI = (".nii", ".nii.gz")


def convert_or_resume(dataset: Dataset, case: Case, output: Path) -> dict[str, Any]:
    """Convert a case unless an interrupted run did it in the same way from the same files.

    Returns:
        The row of the datalist under ``"entry"``, and ``"shape"``, ``"spacing"`` and ``"voxels"`` for the summary; also
        written to ``output/records``.

    Raises: :class:`SourceError` naming the file and what is wrong with it.
    """
    files = [*case.images, *case.label]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise SourceError(f"{missing[0]}: missing. Unpack the official archive again, it may have been interrupted.")
    voxels_beside = [path.with_suffix(suffix) for path in files for suffix in (".raw", ".zraw")]
    source = {
        "files": sha256(*files, *(path for path in voxels_beside if path.is_file())),
        "settings": hashlib.sha256(
            repr((case, dataset.key, dataset.modality, dataset.labels, dataset.label_map, dataset.in_place)).encode()
        ).hexdigest(),
    }
    record_path = output / "records" / f"{case.name}.json"
    if record_path.is_file():
        record: dict[str, Any] = read_json(record_path)
        if record["source"] == source and all(
            file.is_file() and sha256(file) == digest for file, digest in files_of(record["entry"], output)
        ):
            return record
    record = {"source": source, **_convert_case(dataset, case, output)}
    write_json(record_path, record)
    return record


def _convert_case(dataset: Dataset, case: Case, output: Path) -> dict[str, Any]:
    """Write image and label of a case; returns its row of the datalist and what the summary needs."""
    image = dataset.read_image(case) if dataset.read_image else read_channels(case.images)
    _check_channels(dataset, image, case.images[0])
    written = [_write_label(dataset, one, image, output) for one in case.by_rater()]
    labels = [file for file, _ in written]
    files = {
        "image": _write_image(dataset, case, image, output),
        "label": labels if case.raters else labels[0],
    }
    first = files["image"][0] if isinstance(files["image"], list) else files["image"]
    stored: Any = nib.load(output / first)
    return {
        "entry": {
            **files,
            "case": case.name,
            "subject": case.subject,
            **({"group": case.group} if case.group else {}),
            **({"raters": list(case.raters)} if case.raters else {}),
            "sha256": {kind: _sums(named, output) for kind, named in files.items()},
        },
        "shape": [int(size) for size in (*stored.shape, 1)[:3]],
        "spacing": [round(size, 4) for size in spacing(np.asarray(stored.affine))],
        "voxels": [
            int(count) for count in np.ceil(np.mean([voxels[: len(dataset.labels)] for _, voxels in written], axis=0))
        ],
    }


def _check_channels(dataset: Dataset, image: Volume, path: Path) -> None:
    channels = len(dataset.modality)
    expected = "3 axes" if channels == 1 else f"4 axes with {channels} channels on the last"
    if (image.array.ndim == 3) != (channels == 1) or (channels > 1 and image.array.shape[3:] != (channels,)):
        raise SourceError(f"{path}: expected an image of {expected}, got shape {image.array.shape}.")


def _write_image(dataset: Dataset, case: Case, image: Volume, output: Path) -> Any:
    """The path of the image from ``output``, or the paths of its channels; written, copied, or where it was."""
    as_is = dataset.read_image is None and not dataset.reorient and image.as_stored
    if as_is and dataset.in_place and all(path.name.endswith(_NIFTI) for path in case.images):
        return _in_place(case.images) if len(case.images) > 1 else _in_place(case.images)[0]
    target = f"imagesTr/{case.name}.nii.gz"
    if as_is and len(case.images) == 1 and case.images[0].name.endswith(".nii.gz"):
        _copy(case.images[0], output / target)
    else:
        write_nifti(_reoriented(image) if dataset.reorient else image, output / target, dataset.title)
    return target


def _write_label(dataset: Dataset, case: Case, image: Volume, output: Path) -> tuple[str, NDArray[np.int64]]:
    """The path of a label from ``output``, written, copied, or where it was; and the voxels of each class."""
    path = case.label[0]
    label = dataset.read_label(case) if dataset.read_label else read_volume(path)
    moved = check_same_grid(image, label, case.images[0], path)
    label_map = dataset.label_map or {value: value for value in range(len(dataset.labels))}
    if label.array.ndim > 3 and label.array.shape[3:] != (1,):
        raise SourceError(f"{path}: expected a label of 3 axes, got shape {label.array.shape}.")
    values = remap_labels(label.array.reshape(label.array.shape[:3]), label_map, path, dataset.advice)
    counts = count_values(values)
    as_is = (
        dataset.read_label is None
        and not dataset.reorient
        and label.as_stored
        and moved <= SAID_MOVED
        and label.array.dtype.kind in "iu"
        and label.array.ndim == 3
        and all(k == v for k, v in label_map.items())
    )
    if as_is and dataset.in_place and path.name.endswith(_NIFTI):
        return _in_place([path])[0], counts
    target = f"labelsTr/{case.name}.nii.gz"
    if as_is and path.name.endswith(".nii.gz") and case.images[0].name.endswith(".nii.gz"):
        _copy(path, output / target)
    else:
        label = Volume(values, image.affine)
        write_nifti(_reoriented(label) if dataset.reorient else label, output / target, dataset.title)
    return target, counts


def _in_place(paths: Any) -> list[str]:
    return [str(path.absolute()) for path in paths]


def _sums(named: Any, output: Path) -> Any:
    return [sha256(output / name) for name in named] if isinstance(named, list) else sha256(output / named)


def _reoriented(volume: Volume) -> Volume:
    turned = nib.as_closest_canonical(nib.Nifti1Image(volume.array, volume.affine))
    return Volume(np.asanyarray(turned.dataobj), np.asarray(turned.affine))


def _copy(source: Path, target: Path) -> None:
    """Copy a file that needs no change. A link would do, until someone edits the copy and with it the download."""
    with atomic_path(target) as partial:
        shutil.copyfile(source, partial)
