"""Damage and lies, by kind of file: the corpus, as generators."""

from __future__ import annotations

from .archive import ARCHIVE
from .checkpoint import CHECKPOINT
from .dicom import DICOM
from .generic import CANARY, GENERIC, Mutation
from .json import JSON
from .nifti import NIFTI
from .npz import NPZ
from .picture import PICTURE
from .table import TABLE

__all__ = ["CANARY", "GENERIC", "Mutation", "mutations_of"]

BY_KIND: dict[str, tuple[Mutation, ...]] = {
    "NIfTI": NIFTI,
    "DICOM": DICOM,
    "JSON": JSON,
    "NPZ": NPZ,
    "checkpoint": CHECKPOINT,
    "archive": ARCHIVE,
    "picture": PICTURE,
    "table": TABLE,
}


def mutations_of(kind: str) -> tuple[Mutation, ...]:
    """What is done to a file of a kind; generic damage is a third of it."""
    return (*BY_KIND[kind], *BY_KIND[kind], *GENERIC)
