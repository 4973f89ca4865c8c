"""Places of stored maps and their labels, and how to read them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_calib.files import FileError
from monai_calib.predictions.classes import Classes

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Places of maps and labels, and how to read them: what ``correct`` must know of ``measure``.

    Attributes:
        probabilities: folder of maps.
        labels: folder of labels.
        classes: names of the classes, their values in the labels, and the value to leave out.
        logits: whether maps are logits.
        axes: order of their axes, if not the format's own.
        format: the ``kind`` of a :class:`~.stored.MapFolder`, once it is known.
        spacing: voxel size in mm along x, y, z that is put in place of the headers'.
        images: folder of images, for the previews.
    """

    probabilities: Path
    labels: Path
    classes: Classes
    logits: bool = False
    axes: str | None = None
    format: str | None = None
    spacing: tuple[float, ...] | None = None
    images: Path | None = None

    def to_json(self, beside: Path) -> dict[str, Any]:
        """Plain values; folders as seen from the folder ``beside``, so that all may be moved together."""

        def relative(path: Path | None) -> str | None:
            return None if path is None else Path(os.path.relpath(path, beside)).as_posix()

        plain = {
            "probabilities": relative(self.probabilities),
            "labels": relative(self.labels),
            "images": relative(self.images),
            "format": self.format,
            "axes": self.axes,
            "logits": self.logits,
            "classes": self.classes.to_json(),
            "spacing": None if self.spacing is None else list(self.spacing),
        }
        return {name: value for name, value in plain.items() if value is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], beside: Path, what: Any) -> Settings:
        """Read back what :meth:`to_json` gave; ``FileError`` naming ``what`` if it is damaged."""
        try:
            return cls(
                probabilities=(beside / data["probabilities"]).resolve(),
                labels=(beside / data["labels"]).resolve(),
                classes=Classes.from_json(data["classes"]),
                logits=bool(data["logits"]),
                axes=data.get("axes"),
                format=data["format"],
                spacing=tuple(map(float, data["spacing"])) if data.get("spacing") else None,
                images=(beside / data["images"]).resolve() if data.get("images") else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FileError(
                f"{what}: expected what 'measure' says of its maps, got: {error}. Measure again."
            ) from error
