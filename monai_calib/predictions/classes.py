"""Names of the classes, and which value of a label each one is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_calib.files import FileError, read_json

__all__ = ["Classes"]


@dataclass(frozen=True)
class Classes:
    """The classes in the order of a map's channels.

    Attributes:
        names: background first; empty if unknown, then the map's channels decide, and values are their numbers.
        values: of each class in the labels.
        ignore: value in the labels that counts nowhere.
    """

    names: tuple[str, ...] = ()
    values: tuple[int, ...] = ()
    ignore: int | None = None

    @property
    def count(self) -> int | None:
        """Number of classes, if known."""
        return len(self.names) or None

    def named(self, count: int) -> list[str]:
        """A name for each of the channels."""
        return list(self.names) or [f"class {k}" for k in range(count)]

    def label_map(self, ignored: int) -> dict[int, int]:
        """Class number of each value that a label may hold; without names every value is its own."""
        found = dict(zip(self.values, range(len(self.values)), strict=True)) or {k: k for k in range(ignored)}
        if self.ignore is not None:
            found[self.ignore] = ignored
        return found

    def in_labels(self, numbers: NDArray[Any]) -> NDArray[np.uint8]:
        """Class numbers as the values that labels have."""
        return np.array(self.values or range(256), np.uint8)[numbers]

    def to_json(self) -> dict[str, Any]:
        return {"names": list(self.names), "values": list(self.values), "ignore": self.ignore}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Classes:
        """Read back what :meth:`to_json` gave."""
        return cls(tuple(map(str, data["names"])), tuple(map(int, data["values"])), data["ignore"])

    @classmethod
    def from_texts(cls, texts: Sequence[str], ignore: int | None = None) -> Classes:
        """Classes from ``name=value`` each, or names alone, which are numbered.

        Raises: ``ValueError`` for a text of another form, a name or value twice, a value beyond 0 ... 254.

        Example:
            >>> Classes.from_texts(["background=0", "lesion=4"]).values
            (0, 4)
        """
        names, values = [], []
        for number, text in enumerate(texts):
            name, _, value = text.rpartition("=") if "=" in text else (text, "", str(number))
            if not name or not value.isdigit():
                raise ValueError(f"--classes: expected name=value, the value in the labels, got {text!r}.")
            names.append(name)
            values.append(int(value))
        cls._check(names, values, ignore, "--classes")
        return cls(tuple(names), tuple(values), ignore)

    @classmethod
    def from_dataset(cls, folders: Sequence[Path], ignore: int | None = None) -> Classes:
        """Classes from the first ``dataset.json`` in these folders, nnU-Net's or the Decathlon's; else unknown ones.

        Raises: :class:`~monai_calib.files.FileError` naming the file for regions, whose maps do not sum to 1.
        """
        path = next((folder / "dataset.json" for folder in folders if (folder / "dataset.json").is_file()), None)
        if path is None:
            return cls(ignore=ignore)
        content = read_json(path, advice="Name the classes with --classes name=value ...")
        labels = content.get("labels") if isinstance(content, Mapping) else None
        if not isinstance(labels, Mapping) or not labels:
            return cls(ignore=ignore)
        pairs = {str(name): value for name, value in labels.items()}
        if all(name.isdigit() for name in pairs):  # the Decathlon's: value to name
            pairs = {str(name): int(value) for value, name in pairs.items()}
        if any(isinstance(value, Sequence) and not isinstance(value, str) for value in pairs.values()):
            raise FileError(
                f"{path}: expected classes, got overlapping regions. Maps of regions do not sum to 1 and are not read; "
                "if these maps are of classes all the same, name them with --classes name=value ..."
            )
        try:
            numbered = {name: int(value) for name, value in pairs.items()}
        except (TypeError, ValueError) as error:
            raise FileError(f"{path}: labels: expected a number for each name. {error}. Give --classes.") from error
        left_out = numbered.pop("ignore", ignore)
        ordered = sorted(numbered, key=lambda name: numbered[name])
        values = [numbered[name] for name in ordered]
        cls._check(ordered, values, left_out, str(path))
        return cls(tuple(ordered), tuple(values), ignore if ignore is not None else left_out)

    @staticmethod
    def _check(names: Sequence[str], values: Sequence[int], ignore: int | None, what: str) -> None:
        wrong = [value for value in values if not 0 <= value < 255]
        if len(names) < 2 or len(set(names)) < len(names) or len(set(values)) < len(values) or wrong:
            raise ValueError(
                f"{what}: expected at least two classes, background first, each with a name and a value of its own "
                f"from 0 to 254, got {', '.join(f'{n}={v}' for n, v in zip(names, values, strict=True))}."
            )
        if ignore in values:
            raise ValueError(f"--ignore_index: expected a value that is no class, got {ignore}.")
