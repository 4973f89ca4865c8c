"""Reading a case from disk, so that a broken file or label is named where it is met."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import LoadImaged, MapTransform

__all__ = ["LoadCased"]


class LoadCased(MapTransform):
    """Reads image and label channel-first and checks that they belong together.

    The checks run once per case, on the CPU and before caching, so the training step needs none: a label that is no
    integer in ``[0, num_classes)`` would otherwise surface as an index error, or on a GPU as a failed assertion without
    a name.

    Args:
        keys: items to read; the label is the item ``label_key``.
        num_classes: number of classes, background included.
        label_key: the item to check as label.

    Raises:
        RuntimeError: a file cannot be read (for example a truncated archive).
        ValueError: image and label differ in size, or a label value is outside ``[0, num_classes)``.

    Example:
        >>> LoadCased(keys=("image", "label"), num_classes=3)({"image": "missing.nii.gz", "label": "missing.nii.gz"})
        Traceback (most recent call last):
        RuntimeError: cannot read 'missing.nii.gz' ...
    """

    def __init__(self, keys: KeysCollection, num_classes: int, label_key: str = "label") -> None:
        super().__init__(keys)
        self.num_classes = num_classes
        self.label_key = label_key
        self.readers = {key: LoadImaged(keys=key, image_only=True, ensure_channel_first=True) for key in self.keys}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        for key in self.key_iterator(case):
            path = case[key]
            try:
                case = dict(self.readers[key](case))
            except Exception as error:
                raise RuntimeError(
                    f"cannot read {str(path)!r} ({key}): {error}. The file is missing, truncated or not an image; "
                    "convert the data set again, or take the case out of datalist.json"
                ) from error
        if self.label_key in case:
            self._check_label(case, data)
        return case

    def _check_label(self, case: dict[Hashable, Any], paths: Mapping[Hashable, Any]) -> None:
        label = case[self.label_key].as_tensor()
        path = str(paths[self.label_key])
        for key in self.key_iterator(case):
            if case[key].shape[1:] != label.shape[1:]:
                raise ValueError(
                    f"{str(paths[key])!r} has {tuple(case[key].shape[1:])} voxels, "
                    f"but its label {path!r} has {tuple(label.shape[1:])}; both must be the same grid"
                )
        values = torch.unique(label)
        wrong = values[(values < 0) | (values >= self.num_classes) | (values != values.round())]
        if wrong.numel():
            raise ValueError(
                f"label {path!r} holds {wrong.tolist()}; expected integers from 0 to {self.num_classes - 1}. "
                "Convert the data set again with its data script, which maps the labels"
            )
