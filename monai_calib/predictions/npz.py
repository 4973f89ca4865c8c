"""Maps in ``.npz``, as nnU-Net writes them with ``--save_probabilities`` or ``--npz``."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_calib.files import FileError
from monai_calib.predictions.axes import Layout
from monai_calib.predictions.pickles import read_properties
from monai_calib.predictions.properties import box_of, place_of, spacing_of_properties, turn_of
from monai_calib.predictions.segmentations import find_segmentation, write_segmentation
from monai_calib.predictions.stored import Grid, MapFolder, StoredMap

__all__ = ["NpzMaps"]

_KEYS = ("probabilities", "softmax", "logits", "probs", "prob")
_BESIDE = ("dataset.json", "plans.json", "predict_from_raw_data_args.json")
"""Files of a folder of predictions that nnU-Net's own commands want beside the maps."""


class NpzMaps(MapFolder):
    """A folder of ``<case>.npz`` with properties ``<case>.pkl`` or ``.json`` beside them, which are optional.

    The array is ``probabilities`` (nnU-Net v2), ``softmax`` (v1), ``logits``, or the only one there is. Where v1 cut
    the map to a box, what lies outside is background.
    """

    kind = "npz"
    default_axes = "kzyx"

    def read(self, case: str, grid: Grid, num_classes: int | None) -> StoredMap:
        path = self.files[case][0]
        name, array = _array(path)
        properties = read_properties(path.with_suffix(""))
        turn = turn_of(properties, grid.affine, grid.shape)
        whole = grid.shape if turn is None else turn.shape
        box = box_of(properties, array.shape, self.axes, whole)
        inside = whole if box is None else tuple(part.stop - part.start for part in box)
        layout = Layout(array.shape, self.axes, inside, path, num_classes)
        values = layout.class_first(array)
        if box is not None:
            values = _uncut(values, box, whole)
        if turn is not None:
            values = turn.to_label(values)
        place = place_of(properties) if turn is None else turn.place
        size = spacing_of_properties(properties) if turn is None else None
        return StoredMap(values, layout, array.dtype, path, name, box, turn, place, size)

    def write(self, case: str, folder: Path, found: StoredMap, values: NDArray[Any]) -> None:
        """Write the map beside its properties and what else the file held."""
        source = self.files[case][0]
        with np.load(source, allow_pickle=False) as file:
            others = {}
            for name in file.files:
                if name != found.key:
                    try:
                        others[name] = file[name]
                    except ValueError:  # pickled objects, which are left behind
                        continue
        part = (slice(None), *(found.box or ()))
        values = values if found.turn is None else found.turn.to_map(values)
        others[found.key] = found.layout.as_stored(values[part]).astype(found.dtype)
        np.savez_compressed(folder / source.name, **others)
        for suffix in (".pkl", ".json"):
            if (beside := source.with_suffix(suffix)).is_file():
                shutil.copyfile(beside, folder / beside.name)

    def write_labels(self, case: str, folder: Path, labels: NDArray[np.uint8] | None) -> None:
        source = find_segmentation(self.folder, case)
        if source is not None:
            write_segmentation(source, folder / source.name, labels)

    def finish(self, folder: Path) -> None:
        """Copy what nnU-Net wants in a folder of predictions; of a fold's validation it lies with the trained model."""
        fold = self.folder.resolve().parent
        of_fold = self.folder.name == "validation" and fold.name.startswith("fold_")
        places = [self.folder, fold.parent] if of_fold else [self.folder]
        for name in _BESIDE:
            if (found := next((place / name for place in places if (place / name).is_file()), None)) is not None:
                shutil.copyfile(found, folder / name)


def _uncut(values: NDArray[Any], box: tuple[slice, ...], shape: Sequence[int]) -> NDArray[Any]:
    """A map that was cut to a box as a whole one, with background outside."""
    whole = np.zeros((len(values), *shape), values.dtype)
    whole[0] = 1
    everywhere = (slice(None), *box)
    whole[everywhere] = values
    return whole


def _array(path: Path) -> tuple[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            names = list(file.files)
            chosen = next((name for name in _KEYS if name in names), names[0] if len(names) == 1 else None)
            if chosen is None:
                raise FileError(
                    f"{path}: expected one array, or one called {' or '.join(_KEYS[:3])}, got {', '.join(names[:8])}. "
                    "Save the map under one of these names."
                )
            return chosen, np.asarray(file[chosen])
    except FileError:
        raise
    except Exception as error:  # NumPy, zipfile and zlib raise many kinds
        raise FileError(f"{path}: cannot be read as .npz ({error}). Write or copy it again.") from error
