"""The cases of one iteration: what an engine hands to a handler, one named volume at a time."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from monai.utils import ImageMetaKey

from monai_calib.datasets.case import case_name, check_geometry, spacing_of
from monai_calib.handlers.ranks import rank, world_size
from monai_calib.labels import as_plain_tensor, top_class
from monai_calib.words import counted

__all__ = ["Case", "cases_of_iteration", "index_map"]


class Case(NamedTuple):
    """One volume of the batch: ``prediction`` ``(C, *spatial)``, ``label`` ``(1 or C, *spatial)`` on the prediction's
    device, ``spacing`` in mm along each spatial axis, and everything else the loader delivered for it."""

    name: str
    prediction: torch.Tensor
    label: torch.Tensor
    spacing: tuple[float, ...]
    data: Mapping[str, Any]


def cases_of_iteration(
    batch: Any,
    predictions: torch.Tensor | Sequence[torch.Tensor],
    labels: torch.Tensor | Sequence[torch.Tensor],
    spacing: Sequence[float] | None = None,
    first: int = 1,
) -> list[Case]:
    """Pair predictions, labels and the loader's data, decollated or not.

    A case is named by ``case`` of the loader's data, else by its image file without folder and extension, so that no
    path or patient folder gets into a report; without either, by its number. Its voxel size comes from the label's or
    the prediction's header, else from ``spacing``, else it is 1 mm, with a warning.

    Args:
        batch: ``engine.state.batch``: a list of dictionaries, a dictionary of batches, or anything else (ignored).
        predictions: a list of ``(C, *spatial)`` tensors, or one ``(B, C, *spatial)``.
        labels: likewise, with 1 or C channels.
        spacing: voxel size in mm of cases without a header, one number an axis.
        first: number of the iteration's first case, for cases without a file name.

    Raises: ``ValueError`` naming the case if numbers of cases or shapes of prediction and label differ.

    Example:
        >>> header = {"filename_or_obj": "folder/scan_7.nii.gz"}
        >>> image = MetaTensor(torch.zeros(1, 4, 4), affine=torch.diag(torch.tensor([0.5, 2.0, 1.0, 1.0])), meta=header)
        >>> case = cases_of_iteration([{"image": image}], [image], [image])[0]
        >>> case.name, case.spacing
        ('scan_7', (0.5, 2.0))
    """
    if len(predictions) != len(labels):
        given = f"{counted(len(predictions), 'prediction')}, {counted(len(labels), 'label')}"
        raise ValueError(f"expected one label a prediction, got {given}")
    cases = []
    for i, (prediction, label) in enumerate(zip(predictions, labels, strict=True)):
        data = _data_of_case(batch, i, len(predictions))
        name = case_name(data.get("case"), _file(data.get("image"), prediction, label, i)) or _number(first + i)
        ndim = prediction.ndim - 1
        if label.ndim == ndim:
            label = label[None]
        if label.shape[1:] != prediction.shape[1:] or label.shape[0] not in (1, prediction.shape[0]):
            raise ValueError(
                f"case {name}: expected a label with the grid of the prediction {tuple(prediction.shape)} and 1 or "
                f"{prediction.shape[0]} channels, got {tuple(label.shape)}; "
                "take both from the same stage of the postprocessing"
            )
        _check_place(name, data.get("image"), labels[i] if isinstance(labels, (list, tuple)) else data.get("label"))
        voxel = _spacing(labels, i, ndim) or _spacing(predictions, i, ndim) or _default_spacing(spacing, ndim, name)
        plain = as_plain_tensor(prediction)  # arithmetic on headers costs more than on small volumes
        cases.append(Case(name, plain, as_plain_tensor(label).to(plain.device), voxel, data))
    return cases


def index_map(label: torch.Tensor) -> torch.Tensor:
    """Class indices ``(*spatial)`` of an index label ``(1, *spatial)`` or of one-hot channels ``(K, *spatial)``."""
    return label[0] if label.shape[0] == 1 else top_class(label)


def _data_of_case(batch: Any, index: int, num_cases: int) -> Mapping[str, Any]:
    if isinstance(batch, Mapping):
        return {k: v[index] for k, v in batch.items() if hasattr(v, "__getitem__") and len(v) == num_cases}
    if isinstance(batch, Sequence) and len(batch) == num_cases and isinstance(batch[index], Mapping):
        return batch[index]
    return {}


def _file(image: Any, prediction: Any, label: Any, index: int) -> str:
    for source in (image, prediction, label):
        if isinstance(source, MetaTensor):
            path = source.meta.get(ImageMetaKey.FILENAME_OR_OBJ, "")
            # One row of a collated batch may still carry the list of all the batch's files.
            path = path[index] if isinstance(path, (list, tuple)) and index < len(path) else path
            if isinstance(path, (str, Path)) and str(path):
                return str(path)
    return ""


def _check_place(name: str, image: Any, label: Any) -> None:
    """Image and label, where both were read from files, must lie in one place: half a voxel at the corners at most."""
    if not (isinstance(image, MetaTensor) and isinstance(label, MetaTensor)):
        return
    files = [_path(part) for part in (image, label)]
    if not all(files) or image.shape[1:] != label.shape[1:] or image.affine.shape != (4, 4):
        return
    try:
        check_geometry(image.affine.cpu(), label.affine.cpu(), image.shape[1:], files[0], files[1])
    except ValueError as error:
        raise ValueError(f"case {name}: {error} Correct the header that is wrong.") from error


def _path(image: MetaTensor) -> str:
    path = image.meta.get(ImageMetaKey.FILENAME_OR_OBJ, "")
    return str(path) if isinstance(path, (str, Path)) else ""


def _number(number: int) -> str:
    owner = f"rank{rank()}_" if world_size() > 1 else ""
    return f"{owner}case_{number:04d}"


def _spacing(batch: Any, index: int, ndim: int) -> tuple[float, ...] | None:
    item = batch[index] if isinstance(batch, (list, tuple)) else batch
    if not isinstance(item, MetaTensor):
        return None
    affine = item.affine if item.affine.ndim == 2 else item.affine[index]
    return spacing_of(affine, ndim)


def _default_spacing(spacing: Sequence[float] | None, ndim: int, name: str) -> tuple[float, ...]:
    if spacing is not None:
        if len(spacing) != ndim:
            raise ValueError(f"case {name}: spacing needs {ndim} numbers in mm, got {tuple(spacing)}")
        return tuple(float(s) for s in spacing)
    warnings.warn(
        "a case without header, and no spacing given: sizes in mm are taken as voxels of 1 mm; "
        "load the label as MetaTensor or pass spacing=",
        stacklevel=2,
    )
    return (1.0,) * ndim
