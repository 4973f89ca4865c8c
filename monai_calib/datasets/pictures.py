"""Read pictures (PNG and the like) as volumes of one slice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dataset import SourceError, UnreadableError, Volume

__all__ = [
    "PLACE_OF_PICTURE",
    "is_coloured",
    "mask_colours",
    "mask_values",
    "read_colours",
    "read_mask",
    "read_picture",
]

# Rows run from the skin down, taken as towards the back; columns are taken as running to the patient's right.
PLACE_OF_PICTURE = np.diag([1.0, -1.0, 1.0, 1.0])


def _pixels(path: Path, expand: bool) -> NDArray[Any]:
    """Rows by columns, colours on a last axis; of a palette the colours (``expand``) or the indices, of a bit 0 and 255
    or 0 and 1."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if getattr(picture, "n_frames", 1) > 1:
                raise SourceError(f"{path}: holds {picture.n_frames} pictures; expected one. Save a stack as NIfTI.")
            picture.load()
            if picture.mode in ("CMYK", "YCbCr", "LAB", "HSV") or (expand and picture.mode in ("P", "PA")):
                picture = picture.convert("RGB")
            pixels = np.asarray(picture)
            return pixels * np.uint8(255 if expand else 1) if pixels.dtype == bool else pixels
    except SourceError:
        raise
    except Exception as error:  # Pillow raises many kinds
        raise UnreadableError(f"{path}: cannot be read as a picture. Download or unpack it again.") from error


def read_picture(path: Path) -> Volume:
    """A picture as a volume ``(columns, rows, 1)`` with pixels of 1 mm; of colours the mean of red, green and blue."""
    pixels = _pixels(path, expand=True)
    if pixels.ndim == 3:
        colours = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1]
        pixels = np.rint(colours.mean(-1)).astype(pixels.dtype)
    return Volume(pixels.T[..., None], PLACE_OF_PICTURE)


def read_colours(path: Path) -> Volume:
    """A picture as a volume ``(columns, rows, 1, 3)`` of red, green and blue."""
    pixels = _pixels(path, expand=True)
    return Volume(_colours_of(pixels).transpose(1, 0, 2)[:, :, None], PLACE_OF_PICTURE)


def is_coloured(path: Path) -> bool:
    """Whether any pixel of a picture has a colour, and is not grey."""
    colours = _colours_of(_pixels(path, expand=True))
    return bool((colours != colours[..., :1]).any())


def _colours_of(pixels: NDArray[Any]) -> NDArray[Any]:
    """Red, green and blue on a last axis, without transparency; of grey pixels three times the same."""
    if pixels.ndim == 3 and pixels.shape[-1] >= 3:
        return pixels[..., :3]
    return np.repeat(pixels[..., None] if pixels.ndim == 2 else pixels[..., :1], 3, axis=-1)


def mask_colours(path: Path) -> NDArray[np.int64]:
    """The colours of a mask, ``(columns, rows)``, as the numbers 0xRRGGBB; of a palette what the indices stand for.

    Raises: :class:`SourceError` on a mask of more than 8 bits a colour.
    """
    colours = _colours_of(_pixels(path, expand=True))
    if colours.dtype != np.uint8:
        raise SourceError(f"{path}: expected colours of 8 bits, got {colours.dtype}. Save the mask as 8-bit PNG.")
    return (colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])).T


def mask_values(path: Path) -> NDArray[Any]:
    """The values of a mask, ``(columns, rows)``: of a palette the indices, never the colours; nothing is averaged.

    Raises: :class:`SourceError` on a mask in colours, unless all of them are grey.
    """
    pixels = _pixels(path, expand=False)
    if pixels.ndim == 3:
        grey = pixels[..., :1]
        if pixels.shape[-1] >= 3 and (pixels[..., :3] != grey).any():
            raise SourceError(
                f"{path}: expected a mask of class numbers, got colours, whose classes are not known. Save it with one "
                "number a pixel (grey, or a palette, whose indices count)."
            )
        pixels = grey[..., 0]
    return pixels.T


def read_mask(paths: Sequence[Path]) -> Volume:
    """The union of black-and-white masks, as 0 and 1.

    Raises: :class:`SourceError` on masks of different sizes, in colours, or with grey pixels.
    """
    masks = [mask_values(path) for path in paths]
    for mask, path in zip(masks, paths, strict=True):
        if mask.shape != masks[0].shape:
            raise SourceError(f"{path}: mask of {mask.shape} pixels beside one of {masks[0].shape} ({paths[0]}).")
        odd = np.setdiff1d(mask, [0, 1, 255])
        if odd.size:
            raise SourceError(f"{path}: unknown label value {odd[0]}; expected a mask of 0 and 255.")
    return Volume(np.any([mask > 0 for mask in masks], axis=0).astype(np.uint8)[..., None], PLACE_OF_PICTURE)
