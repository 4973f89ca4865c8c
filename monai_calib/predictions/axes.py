"""Order of a map's axes: from the file's to ``(K, x, y, z)``, the label's, and back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_calib.files import FileError

__all__ = ["Layout", "SwappedAxes", "check_axes"]

MOST_CLASSES = 256
_CLEARLY = 0.2  # in Dice, mean over cases


def check_axes(axes: str) -> str:
    """The order, in small letters: ``k`` for classes, ``x``, ``y``, ``z`` for the label's axes, each once.

    Raises: ``ValueError`` for anything else.

    Example:
        >>> check_axes("KZYX")
        'kzyx'
    """
    order = axes.lower()
    if sorted(order) != sorted("kxyz"):
        raise ValueError(
            f"axes: expected the letters k (class), x, y and z (the label's axes) once each, got {axes!r}. nnU-Net's "
            ".npz is kzyx, a 4D NIfTI with classes last xyzk."
        )
    return order


class Layout:
    """Layout of one file: its shape and the order of its axes; those of one element may be missing, or one too many.

    Args:
        shape: of the array in the file.
        axes: order, such as ``"kzyx"``.
        label_shape: ``(x, y, z)`` of the label.
        what: the file, for errors.
        num_classes: if known.

    Raises: :class:`~monai_calib.files.FileError` for a shape that does not fit the label's, saying which order would.

    Example:
        >>> Layout((3, 10, 40, 50), "kxyz", (50, 40, 10), "a.npz")
        Traceback (most recent call last):
        monai_calib.files.FileError: a.npz: expected shape (K, 50, 40, 10) (axes kxyz, ...), got (3, 10, 40, 50). ...
    """

    def __init__(
        self, shape: Sequence[int], axes: str, label_shape: Sequence[int], what: Any, num_classes: int | None = None
    ) -> None:
        self.shape, self.axes = tuple(shape), axes
        sizes = dict(zip("xyz", label_shape, strict=True))
        squeezed = _four(self.shape, axes, sizes)
        if squeezed is not None:
            sizes["k"] = num_classes or squeezed[axes.index("k")]
        if squeezed is None or 0 in squeezed or squeezed != tuple(sizes[axis] for axis in axes):
            raise _misfit(self.shape, squeezed, axes, label_shape, what, num_classes)
        self.squeezed = squeezed

    @property
    def num_classes(self) -> int:
        return self.squeezed[self.axes.index("k")]

    def class_first(self, array: NDArray[Any]) -> NDArray[Any]:
        """The file's array as ``(K, x, y, z)``, a view where possible.

        Example:
            >>> Layout((2, 3, 4, 5), "kzyx", (5, 4, 3), "a.npz").class_first(np.zeros((2, 3, 4, 5))).shape
            (2, 5, 4, 3)
        """
        return array.reshape(self.squeezed).transpose([self.axes.index(axis) for axis in "kxyz"])

    def as_stored(self, values: NDArray[Any]) -> NDArray[Any]:
        """``(K, x, y, z)`` as the file has it."""
        return np.ascontiguousarray(values.transpose(["kxyz".index(axis) for axis in self.axes])).reshape(self.shape)


def _four(shape: tuple[int, ...], axes: str, sizes: dict[str, int]) -> tuple[int, ...] | None:
    """The shape with four axes: ITK's fifth of one element left out, a picture's missing third put in."""
    if len(shape) == 5 and shape[3] == 1:
        return (*shape[:3], shape[4])
    if len(shape) == 3 and sizes["z"] == 1:
        place = axes.index("z")
        return (*shape[:place], 1, *shape[place:])
    return shape if len(shape) == 4 else None


def _misfit(
    shape: tuple[int, ...],
    squeezed: tuple[int, ...] | None,
    axes: str,
    label_shape: Sequence[int],
    what: Any,
    num_classes: int | None,
) -> FileError:
    sizes = dict(zip("xyz", label_shape, strict=True))
    classes = num_classes or "K"
    expected = ", ".join(str({**sizes, "k": classes}[axis]) for axis in axes)
    said = f"{what}: expected shape ({expected}) (axes {axes}, label {tuple(label_shape)}), got {shape}."
    if squeezed is None:
        return FileError(
            f"{said} Save one probability per class, background included: (K, z, y, x) in .npz, (x, y, z, K) in NIfTI."
        )
    if num_classes is not None and tuple(sizes.get(axis, squeezed[i]) for i, axis in enumerate(axes)) == squeezed:
        return FileError(
            f"{said} The map has {squeezed[axes.index('k')]} classes: name as many, background first, with --classes "
            "name=value ..."
        )
    fitting = []
    for order in map("".join, permutations("kxyz")):
        k = squeezed[order.index("k")]
        if all(sizes.get(axis, num_classes or k) == size for axis, size in zip(order, squeezed, strict=True)):
            fitting.append(order)
    fitting = [order for order in fitting if squeezed[order.index("k")] <= MOST_CLASSES]
    if fitting:
        return FileError(f"{said} The axes are swapped: --axes {fitting[0]} fits.")
    return FileError(
        f"{said} Map and label must lie on one grid: resample the map to the label, or take the label it belongs to."
    )


class SwappedAxes:
    """Notices axes of equal length that are swapped, which no shape tells, by the overlap with the labels of all cases.

    Example:
        >>> truth = np.zeros((4, 4, 4), bool)
        >>> truth[:3, 0, 0] = truth[0, :2, 0] = True
        >>> seen = SwappedAxes("kzyx")
        >>> seen.add(truth.transpose(2, 1, 0), truth)
        >>> seen.better()
        'kxyz'
    """

    def __init__(self, axes: str) -> None:
        self.axes = axes
        self._sums: dict[tuple[int, ...], list[float]] = {}
        self._cases = 0

    def add(self, predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
        """Take in the foregrounds of one case, ``(x, y, z)`` both."""
        self._cases += 1
        whole = float(predicted.sum() + truth.sum())
        for order in permutations(range(3)):
            turned = predicted.transpose(order)
            if turned.shape == truth.shape and whole:
                self._sums.setdefault(order, []).append(2 * float((turned & truth).sum()) / whole)

    def better(self) -> str | None:
        """The order of axes under which maps and labels overlap much better; None if there is none."""
        told = {order: sum(dice) / len(dice) for order, dice in self._sums.items() if 2 * len(dice) > self._cases}
        mine = told.pop((0, 1, 2), 0.0)
        best = max(told, key=lambda order: told[order], default=None)
        if best is None or told[best] < mine + _CLEARLY:
            return None
        renamed = {"xyz"[old]: "xyz"[new] for new, old in enumerate(best)}
        return "".join(renamed.get(axis, axis) for axis in self.axes)
