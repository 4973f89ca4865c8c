"""A DICOM series in a folder: found, read as far as needed, sorted, and checked to be one volume."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  # its customary name
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from .stacking import LPS_TO_RAS, stack_slices

__all__ = ["Series", "find_series", "read_series"]

# All that is ever read of a header besides its pixels: geometry, what the series is, and those attributes of patient
# and study that the standard demands (types 1 and 2) of a segmentation. What is not read cannot leak.
_HEADER = (
    "SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Modality", "SeriesInstanceUID", "SeriesNumber",
    "FrameOfReferenceUID", "PositionReferenceIndicator", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "Rows", "Columns", "SamplesPerPixel", "NumberOfFrames",
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex",
    "StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


@dataclass(frozen=True)
class Series:
    """Slices of one series as a volume, from the lowest position along the slice normal to the highest.

    Attributes:
        uid: Series Instance UID.
        files: one file a slice.
        headers: one header a slice, of geometry and the identifiers a segmentation has to carry; no pixels.
        affine: ``(4, 4)``, from voxel ``(column, row, slice)`` to RAS coordinates in mm.
    """

    uid: str
    files: tuple[Path, ...]
    headers: tuple[Dataset, ...] = field(repr=False)  # a traceback's text is no place for a patient's name
    affine: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows, slices: the axes of the NIfTI volume."""
        return int(self.headers[0].Columns), int(self.headers[0].Rows), len(self.headers)

    @property
    def sop_instance_uids(self) -> list[str]:
        """UID of each slice."""
        return [str(header.SOPInstanceUID) for header in self.headers]

    @cached_property
    def image(self) -> sitk.Image:
        """Rescaled values (Hounsfield units for CT) as float32, read with GDCM.

        Raises:
            ValueError: a file's pixels cannot be read, or SimpleITK places the volume elsewhere than its headers.
        """
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(path) for path in self.files])
        # Slices may differ in rescale slope (PET): the type of the first one would cut off the others' fractions.
        reader.SetOutputPixelType(sitk.sitkFloat32)
        try:
            image = reader.Execute()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(
                f"series {self.uid}: the pixels cannot be read ({reason}). Is a file truncated?"
            ) from error
        placed = sitk_affine(image)
        if image.GetSize() != self.shape or not np.allclose(placed, self.affine, rtol=0, atol=1e-2):
            raise ValueError(
                f"series {self.uid}: SimpleITK sees {image.GetSize()} voxels at\n{placed}\nbut the headers say "
                f"{self.shape} at\n{self.affine}. Nothing is written, since one of both is wrong"
            )
        return image


def sitk_affine(image: sitk.Image) -> NDArray[np.float64]:
    """From voxel indices of a SimpleITK image to RAS coordinates in mm, ``(4, 4)``."""
    lps = np.eye(4)
    lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    lps[:3, 3] = image.GetOrigin()
    return LPS_TO_RAS @ lps


def find_series(folder: str | Path) -> dict[str, tuple[Path, ...]]:
    """The series in a folder (not below it): files by Series Instance UID.

    Raises:
        FileNotFoundError: there is no such folder, or no DICOM series in it.

    Example:
        >>> find_series("nowhere")
        Traceback (most recent call last):
        FileNotFoundError: there is no folder 'nowhere'; expected one that holds a DICOM series
    """
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {str(path)!r}; expected one that holds a DICOM series")
    reader = sitk.ImageSeriesReader
    warned = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # a folder without a series is told below, and once
    try:
        found = {
            uid: tuple(Path(name) for name in reader.GetGDCMSeriesFileNames(str(path), uid))
            for uid in reader.GetGDCMSeriesIDs(str(path))
        }
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(warned)
    if not found:
        raise FileNotFoundError(
            f"the folder {str(path)!r} holds no DICOM series; expected its slices there, and not in a folder below"
        )
    return found


def read_series(folder: str | Path, series_uid: str | None = None) -> Series:
    """Read the headers of a series, sort its slices along their normal and check that they are one volume.

    Args:
        folder: holds the slices, one file each, in any order and by any name.
        series_uid: which series; may be left out where the folder holds one.

    Raises:
        FileNotFoundError: the folder or the series is not there.
        ValueError: the folder holds several series and none was chosen, a file of the series is broken, or the series
            is no regular volume (see :func:`monai_calib.dicom.stacking.stack_slices`).
    """
    found = find_series(folder)
    if series_uid is None and len(found) > 1:
        raise ValueError(f"{str(folder)!r} holds {len(found)} series; choose one by its UID:\n{_listing(found)}")
    uid = series_uid or next(iter(found))
    if uid not in found:
        raise FileNotFoundError(f"{str(folder)!r} holds no series {uid}, but:\n{_listing(found)}")
    _check_unread(Path(folder), found, uid)
    headers = [dcmread(path, stop_before_pixels=True, specific_tags=list(_HEADER)) for path in found[uid]]
    order, affine = stack_slices(headers, f"series {uid}")
    return Series(uid, tuple(found[uid][k] for k in order), tuple(headers[k] for k in order), affine)


def _check_unread(folder: Path, found: dict[str, tuple[Path, ...]], uid: str) -> None:
    """GDCM passes over files it cannot parse without a word; at an end of the volume no gap would tell."""
    known = {path.name for files in found.values() for path in files}
    for path in sorted(path for path in folder.iterdir() if path.is_file() and path.name not in known):
        try:
            header = dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        except (InvalidDicomError, EOFError):
            continue
        if header.get("SeriesInstanceUID") == uid:
            raise ValueError(
                f"series {uid}: the file {path.name!r} belongs to it but cannot be read; expected every slice whole. "
                "It is truncated or broken: export or copy the series again"
            )


def _listing(found: dict[str, tuple[Path, ...]]) -> str:
    lines = []
    for uid, files in sorted(found.items()):
        modality = dcmread(files[0], stop_before_pixels=True, specific_tags=["Modality"]).get("Modality", "?")
        lines.append(f"  {uid}  {modality}, {len(files)} files")
    return "\n".join(lines)
