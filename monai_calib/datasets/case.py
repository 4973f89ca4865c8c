"""The truth about a case: its name, its voxel size, and whether image and label lie in the same place."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Place",
    "case_name",
    "case_of_file",
    "check_affine",
    "check_geometry",
    "file_safe",
    "itk_affine",
    "moved_voxels",
    "spacing_of",
    "unique_names",
]

# Below half a voxel, the voxel of the image that is nearest to a voxel of the label is the one of its own number.
MOST_MOVED = 0.5
SAID_MOVED = 0.1
_ROUNDING = 1e-3  # of float32 headers, in voxels


def case_of_file(path: Any) -> str:
    """The case's name that a file gives: without folder and extension.

    Example:
        >>> case_of_file("patient folder/hippocampus_001.nii.gz")
        'hippocampus_001'
    """
    file = PurePath(str(path)).name.removesuffix(".gz")
    return file.rsplit(".", 1)[0] if "." in file[1:] else file


def file_safe(name: Any) -> str:
    """The name with what file systems refuse or take for a folder replaced by ``_``.

    Example:
        >>> file_safe("ward 3/scan:1")
        'ward 3_scan_1'
    """
    return re.sub(r'[\x00-\x1f/\\:*?"<>|]+', "_", str(name)).strip(" .") or "_"


def case_name(given: Any = None, path: Any = None) -> str:
    """A case's name: what the datalist calls it, else its image file's, else ``""``.

    Args:
        given: ``case`` of the datalist, if any; a sequence of one, as a loader collates it, counts as its element.
        path: image file, if known.

    Example:
        >>> case_name(None, "a/scan_7.nii.gz"), case_name("subject 7, left", "a/scan_7.nii.gz")
        ('scan_7', 'subject 7, left')
    """
    if isinstance(given, (list, tuple)) and len(given) == 1:
        given = given[0]
    if isinstance(given, (str, int)) and not isinstance(given, bool) and str(given).strip():
        return file_safe(given)
    return case_of_file(path) if path is not None and str(path) else ""


def unique_names(paths: Sequence[Any]) -> list[str]:
    """Names of cases by their files; files of one name in several folders get their folder's name in front.

    Example:
        >>> unique_names(["a/scan.nii.gz", "b/scan.nii.gz", "b/other.nii.gz"])
        ['a_scan', 'b_scan', 'other']
    """
    parts = [[*map(file_safe, PurePath(str(path)).parts[:-1]), file_safe(case_of_file(path))] for path in paths]
    used = [1] * len(parts)
    names = [folders[-1] for folders in parts]
    while True:
        counted = Counter(names)
        longer = [i for i, name in enumerate(names) if counted[name] > 1 and used[i] < len(parts[i])]
        if not longer:
            break
        for i in longer:
            used[i] += 1
            names[i] = "_".join(parts[i][-used[i] :])
    seen: Counter[str] = Counter()
    for i, name in enumerate(names):  # the same file twice
        seen[name] += 1
        names[i] = name if seen[name] == 1 else f"{name}_{seen[name]}"
    return names


def spacing_of(volume: Any, ndim: int = 3) -> tuple[float, ...] | None:
    """Voxel size in mm along the first ``ndim`` axes; None for a tensor or array without header.

    Args:
        volume: an affine ``(d + 1, d + 1)``, or what has one: a MetaTensor, a NIfTI image.
        ndim: number of spatial axes.

    Raises: ``ValueError`` on an affine that is not finite or has fewer axes.

    Example:
        >>> spacing_of(np.diag([0.5, 2.0, 3.0, 1.0]), ndim=2)
        (0.5, 2.0)
    """
    affine = _affine_of(volume)
    if affine is None:
        return None
    if affine.shape[0] <= ndim or not np.isfinite(affine).all():
        raise ValueError(f"affine: expected finite numbers for {ndim} axes, got {affine.tolist()}.")
    sizes = np.sqrt((affine[:-1, :ndim] ** 2).sum(0))
    return tuple(float(size) or 1.0 for size in sizes)


def _affine_of(volume: Any) -> NDArray[np.float64] | None:
    found = getattr(volume, "affine", None)
    if found is None:
        if isinstance(volume, np.ndarray) and volume.ndim == 2 and volume.shape[0] == volume.shape[1]:
            found = volume
        elif getattr(volume, "ndim", 0) == 2 and volume.shape[0] == volume.shape[1] <= 4:
            found = volume  # a plain tensor
        else:
            return None
    found = found.detach().cpu().numpy() if hasattr(found, "detach") else found
    affine = np.asarray(found, dtype=np.float64)
    return affine if affine.ndim == 2 and affine.shape[0] == affine.shape[1] else None


class Place(NamedTuple):
    """Place of a volume: ``affine``, and where its header has them, the NIfTI forms ``sform`` and ``qform``."""

    affine: ArrayLike
    sform: ArrayLike | None = None
    qform: ArrayLike | None = None

    def beside(self, other: Place) -> tuple[ArrayLike, ArrayLike]:
        """The affines of two volumes that can be compared: like with like.

        A qform is a rotation in float32 and drifts by some tenths of a voxel from the sform of the same scan; so sforms
        are compared where both files have one, else qforms, and only else what each has.
        """
        if self.sform is not None and other.sform is not None:
            return self.sform, other.sform
        if self.qform is not None and other.qform is not None:
            return self.qform, other.qform
        return self.affine, other.affine


def check_affine(affine: ArrayLike, of: Any) -> NDArray[np.float64]:
    """The affine as float64; ``ValueError`` naming the file where it is not finite or not invertible."""
    matrix = np.asarray(affine, dtype=np.float64)
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
    if not square or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:-1, :-1])) < 1e-9:
        raise ValueError(
            f"{of}: the header's voxel size or orientation is not usable: {matrix.tolist()}. Correct the header."
        )
    return matrix


def itk_affine(direction: ArrayLike, spacing: ArrayLike, origin: ArrayLike) -> NDArray[np.float64]:
    """The affine of ITK's geometry, whose axes run to the left, posterior, superior: voxel to mm in NIfTI's.

    Example:
        >>> itk_affine((1, 0, 0, 0, 1, 0, 0, 0, 1), (1, 1, 3), (5, 0, 0))[0].tolist()
        [-1.0, 0.0, 0.0, -5.0]
    """
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(direction, (3, 3)) * np.asarray(spacing, np.float64)
    affine[:3, 3] = origin
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def moved_voxels(image: ArrayLike, label: ArrayLike, shape: Sequence[int]) -> float:
    """Greatest distance of a label's corner from the image's, in voxels of the image along one of its axes.

    Args:
        image: affine of the image, voxel to mm.
        label: affine of the label.
        shape: voxels along the axes, the same for both.
    """
    first, second = np.asarray(image, dtype=np.float64), np.asarray(label, dtype=np.float64)
    return float(np.abs(np.linalg.solve(first[:-1, :-1], _moves(first, second, shape))).max())


def _moves(first: NDArray[np.float64], second: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
    """Move of each corner in mm, from where the first affine puts it to where the second does: ``(axes, corners)``."""
    axes = len(first) - 1
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in [*shape, 1, 1, 1][:axes]])).reshape(axes, -1)
    return ((second - first) @ np.vstack([corners, np.ones(corners.shape[1])]))[:-1]


def check_geometry(
    image: Place | ArrayLike,
    label: Place | ArrayLike,
    shape: Sequence[int],
    of_image: Any,
    of_label: Any,
    shape_of_label: Sequence[int] | None = None,
    advice: str = "",
) -> float:
    """Demand that image and label have the same voxels in the same place.

    No corner of the volume may move by half a voxel or more along an axis of the image; from a tenth of a voxel on a
    warning is given.

    Args:
        image: where the image lies, as :class:`Place` or as an affine.
        label: where the label lies.
        shape: voxels of the image along each axis.
        of_image: file of the image, for the message.
        of_label: file of the label.
        shape_of_label: voxels of the label, by default not compared.
        advice: last sentence of the error: what to do.

    Returns:
        The greatest move of a corner in voxels.

    Raises: ``ValueError`` naming both files and what differs.

    Example:
        >>> check_geometry(np.diag([-0.5, -0.5, 3, 1]), np.eye(4), (10, 10, 5), "a.nii.gz", "a_seg.nii.gz")
        Traceback (most recent call last):
        ValueError: a_seg.nii.gz: the headers put label and image (a.nii.gz) up to 20.7 mm apart, 27 voxels: ...
    """
    if shape_of_label is not None and tuple(shape) != tuple(shape_of_label):
        raise ValueError(
            f"{of_label}: expected {tuple(shape)} voxels as in the image ({of_image}), got {tuple(shape_of_label)}. "
            "Both must be the same grid: resample the label to the image."
        )
    first = image if isinstance(image, Place) else Place(image)
    second = label if isinstance(label, Place) else Place(label)
    ours, theirs = first.beside(second)
    a, b = check_affine(ours, of_image), check_affine(theirs, of_label)
    moved = moved_voxels(a, b, shape)
    if moved <= SAID_MOVED:
        return moved
    apart = np.sqrt((_moves(a, b, shape) ** 2).sum(0)).max()
    said = f"{of_label}: the headers put label and image ({of_image}) up to {apart:.3g} mm apart, {moved:.2g} voxels"
    sizes = f"voxel sizes {_rounded(spacing_of(b, len(b) - 1))} and {_rounded(spacing_of(a, len(a) - 1))} mm, "
    origins = f"origins {_rounded(b[:-1, -1])} and {_rounded(a[:-1, -1])}"
    turned = "" if _axes(a) == _axes(b) else f", axes {_axes(b)} and {_axes(a)}"
    if moved > MOST_MOVED - _ROUNDING:
        raise ValueError(f"{said}: {sizes}{origins}{turned}.{f' {advice}' if advice else ''}")
    warnings.warn(f"{said}; the label is taken to lie where the image does.", stacklevel=2)
    return moved


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 3) for value in values]


def _axes(affine: NDArray[Any]) -> str:
    """The nearest directions of the axes, such as RAS."""
    names = []
    for column in affine[:-1, :-1].T:
        most = int(np.abs(column).argmax())
        names.append(("LR", "PA", "IS")[most][int(column[most] > 0)])
    return "".join(names)
