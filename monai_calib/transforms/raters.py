"""Labels of several raters as dictionary transforms: their mean, or the majority beside all of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple

from monai_calib.labels import mean_label, top_class

__all__ = ["KeepRatersd", "MeanLabeld"]


class MeanLabeld(MapTransform):
    """Turns class numbers of raters, one channel a rater, into the share of raters that gave each class.

    ``(R, *spatial)`` becomes ``(K, *spatial)`` float32, which losses take as a soft label. One rater's label becomes
    one-hot, so that cases of one and of several raters fit into one batch. It belongs behind everything that
    interpolates or pads class numbers, and before what crops by class, which then finds each class that any rater gave.

    Args:
        keys: labels, as :class:`~monai_calib.transforms.LoadCased` reads a list of files.
        num_classes: K, background included.

    Raises: ``ValueError`` for values that are no class numbers.

    Example:
        >>> case = MeanLabeld("label", num_classes=2)({"label": torch.tensor([[0, 1], [1, 1]])})
        >>> case["label"]
        tensor([[0.5000, 0.0000],
                [0.5000, 1.0000]])
    """

    def __init__(self, keys: KeysCollection, num_classes: int) -> None:
        super().__init__(keys)
        self.num_classes = num_classes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        for key in self.key_iterator(case):
            case[key] = _with_header(mean_label(case[key], self.num_classes, what=_file(case[key])), case[key])
        return case


class KeepRatersd(MapTransform):
    """Keeps the class numbers of several raters beside the case, and leaves their majority as its label.

    Of ``(R, *spatial)`` class numbers ``label`` becomes ``(1, *spatial)``, the class that most raters gave, the lowest
    of equals: what needs one label, such as MONAI's Dice or the surface distances, reads that. All of them go to
    ``raters``, where :class:`~monai_calib.handlers.CalibrationHandler` and :func:`monai_calib.posthoc.calibrate` find
    them. A label of one channel stays as it is.

    Args:
        keys: labels, as :class:`~monai_calib.transforms.LoadCased` reads a list of files.
        num_classes: K, background included.
        ignore_index: label of voxels that a rater left out; the majority is of the others.
        names: where the raters' labels go, a name a key.

    Raises: ``ValueError`` for values that are no class numbers.

    Example:
        >>> case = KeepRatersd("label", num_classes=2)({"label": torch.tensor([[0, 1], [1, 1], [1, 0]])})
        >>> case["label"], case["raters"].shape
        (tensor([[1, 1]]), torch.Size([3, 2]))
    """

    def __init__(
        self, keys: KeysCollection, num_classes: int, ignore_index: int | None = None, names: KeysCollection = "raters"
    ) -> None:
        super().__init__(keys)
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.names = ensure_tuple(names)
        if len(self.names) != len(self.keys):
            raise ValueError(f"names: expected one for each of {self.keys}, got {self.names}")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        for key, name in self.key_iterator(case, self.names):
            raters = case[key]
            if len(raters) == 1:
                continue
            shares = mean_label(raters, self.num_classes, self.ignore_index, _file(raters))
            most = top_class(shares)[None].to(raters.dtype)
            if self.ignore_index is not None:  # where nobody knows, every channel says so
                most = most.masked_fill((shares == self.ignore_index).all(0), self.ignore_index)
            case[key], case[name] = _with_header(most, raters), raters
        return case


def _with_header(values: torch.Tensor, like: Any) -> torch.Tensor:
    """The values where the label is."""
    return MetaTensor(values, affine=like.affine, meta=like.meta) if isinstance(like, MetaTensor) else values


def _file(label: Any) -> str:
    file = label.meta.get("filename_or_obj") if isinstance(label, MetaTensor) else None
    return f"label {str(file)!r}" if file else "label"
