"""Read pictures (PNG) as volumes of one slice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dataset import SourceError, Volume

__all__ = ["read_mask", "read_picture"]

# Rows run from the skin down, taken as towards the back; columns are taken as running to the patient's right.
_AFFINE = np.diag([1.0, -1.0, 1.0, 1.0])


def _grey(path: Path, is_mask: bool = False) -> NDArray[Any]:
    """Columns by rows; of a coloured picture the mean of red, green and blue; a mask of colours is refused."""
    import SimpleITK as sitk  # noqa: N813  # its customary name

    try:
        pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError as error:
        raise SourceError(f"{path}: cannot be read as a picture. Download or unpack it again.") from error
    if is_mask and pixels.ndim == 3 and (pixels[..., :3] != pixels[..., :1]).any():
        raise SourceError(f"{path}: a mask in colours, whose classes are not known. Save it with one number a pixel.")
    return (pixels if pixels.ndim == 2 else np.rint(pixels[..., :3].mean(-1)).astype(pixels.dtype)).T


def read_picture(path: Path) -> Volume:
    """A grey picture as a volume ``(columns, rows, 1)`` with pixels of 1 mm."""
    return Volume(_grey(path)[..., None], _AFFINE)


def read_mask(paths: Sequence[Path]) -> Volume:
    """The union of black-and-white masks, as 0 and 1.

    Raises: :class:`SourceError` on masks of different sizes, or with grey pixels.
    """
    masks = [_grey(path, is_mask=True) for path in paths]
    for mask, path in zip(masks, paths, strict=True):
        if mask.shape != masks[0].shape:
            raise SourceError(f"{path}: mask of {mask.shape} pixels beside one of {masks[0].shape} ({paths[0]}).")
        odd = np.setdiff1d(mask, [0, 1, 255])
        if odd.size:
            raise SourceError(f"{path}: unknown label value {odd[0]}; expected a mask of 0 and 255.")
    return Volume(np.any([mask > 0 for mask in masks], axis=0).astype(np.uint8)[..., None], _AFFINE)
