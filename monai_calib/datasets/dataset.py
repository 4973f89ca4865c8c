"""Declaration of a data set by its script, and the errors for what is wrong with a download."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .case import Place

__all__ = ["Case", "Dataset", "SourceError", "UnreadableError", "Volume", "name_problems"]


class SourceError(ValueError):
    """The source is not what it should be; the message names the file or case, and what to do."""


class UnreadableError(SourceError, RuntimeError):
    """A file that cannot be read: missing, truncated, damaged, of another format."""


def name_problems(problems: Sequence[str], what: str, shown: int = 20) -> SourceError:
    """One error that lists all the problems found, so that they can be mended in one go."""
    listed = [f"  - {problem}" for problem in problems[:shown]]
    if len(problems) > shown:
        listed.append(f"  ... and {len(problems) - shown} more")
    return SourceError("\n".join([f"{what}:", *listed]))


@dataclass(frozen=True)
class Volume:
    """``array`` ``(X, Y, Z)`` or ``(X, Y, Z, channels)``; ``affine``, voxel to mm to the right, anterior, superior.

    Attributes:
        as_stored: False where the file would be read differently by others, and so must be written anew.
        sform, qform: the two forms of a NIfTI header, where it has them.
        header: of a NIfTI file.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    as_stored: bool = True
    sform: NDArray[np.float64] | None = None
    qform: NDArray[np.float64] | None = None
    header: Any = None

    @property
    def place(self) -> Place:
        """Place of the volume, to be compared with another's."""
        return Place(self.affine, self.sform, self.qform)


@dataclass(frozen=True)
class Case:
    """One image with its label.

    Attributes:
        name: base name of the files to write.
        subject: whose image it is; a subject is never in two splits.
        images: a file for each channel.
        label: the label file, or several files that each hold a part of the label.
        group: stratum of the split (a diagnosis, a scanner); every split gets its share of each.
        raters: who drew each of the label files, where each is a whole label of its own.
    """

    name: str
    subject: str
    images: tuple[Path, ...]
    label: tuple[Path, ...]
    group: str = ""
    raters: tuple[str, ...] = ()

    def by_rater(self) -> list[Case]:
        """The case once per rater, with this rater's label; the case itself where there is one label.

        Example:
            >>> case = Case("a", "1", (Path("a.png"),), (Path("x/a.png"), Path("y/a.png")), raters=("x", "y"))
            >>> [one.name for one in case.by_rater()]
            ['a_x', 'a_y']
        """
        if not self.raters:
            return [self]
        return [
            replace(self, name=f"{self.name}_{rater}", label=(file,), raters=())
            for rater, file in zip(self.raters, self.label, strict=True)
        ]


@dataclass(frozen=True)
class Dataset:
    """Particulars of a data set; :func:`monai_calib.datasets.command.run` does the rest.

    Attributes:
        key: name of the script.
        title: name of the data set.
        description: what it shows, with its reference.
        licence: terms of use.
        layout: what the official download looks like, shown when something is missing.
        modality: name of each image channel.
        labels: name of each label value written, from 0.
        find_cases: the cases in the download's folder; raises :class:`SourceError` on what is missing.
        cases: number of labelled cases of the official download, told if fewer are found; None for data of one's own.
        root: names that find the data set's folder inside the one given, see ``archives.find_root``.
        label_map: value in the download -> value written; by default they are the same.
        read_image, read_label: how to read a case, where a file a channel and one label file do not do.
        reorient: turn the axes to right, anterior, superior (the affine follows), where slices lie on an odd axis.
        fractions: shares of the subjects in training, validation and test.
        archive: name of the archive in MONAI's ``DecathlonDataset``, for ``--download``.
        in_place: name NIfTI files that need no change where they lie, instead of copying them.
        advice: what to do about an unknown label value.
        about: further keys of the datalist.
    """

    key: str
    title: str
    description: str
    licence: str
    layout: str
    modality: tuple[str, ...]
    labels: tuple[str, ...]
    find_cases: Callable[[Path], list[Case]]
    root: tuple[str, ...]
    cases: int | None = None
    label_map: Mapping[int, int] | None = None
    read_image: Callable[[Case], Volume] | None = None
    read_label: Callable[[Case], Volume] | None = None
    reorient: bool = False
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    archive: str | None = None
    in_place: bool = False
    advice: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
