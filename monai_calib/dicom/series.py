"""A DICOM series in a folder: found, read as far as needed, sorted, and checked to be one volume."""

from __future__ import annotations

import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  # its customary name
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from monai_calib.datasets.case import itk_affine
from monai_calib.words import counted

from .stacking import instance_gaps, stack_slices

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
_PADDING = 64  # bytes that some scanners write after the pixels
# What GDCM makes values of; checked, and not kept.
_PIXELS = ("RescaleSlope", "RescaleIntercept", "BitsAllocated", "BitsStored", "PixelRepresentation")


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
    def gaps(self) -> str:
        """A sentence on slices that are missing by their instance numbers; nothing where these run on."""
        return instance_gaps(self.headers)

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
                f"series {self.uid}: the pixels cannot be read ({reason}). Is {_unreadable(self.files)} truncated?"
            ) from error
        placed = itk_affine(image.GetDirection(), image.GetSpacing(), image.GetOrigin())
        if image.GetSize() != self.shape or not np.allclose(placed, self.affine, rtol=0, atol=1e-2):
            raise ValueError(
                f"series {self.uid}: SimpleITK sees {image.GetSize()} voxels at\n{placed}\nbut the headers say "
                f"{self.shape} at\n{self.affine}. Nothing is written, since one of both is wrong"
            )
        return image


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
    except RuntimeError as error:
        raise ValueError(
            f"{path}: expected DICOM slices, but GDCM cannot read {_unreadable(sorted(path.iterdir()))}. Export or "
            "copy the series again"
        ) from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(warned)
    if not found:
        raise FileNotFoundError(
            f"the folder {str(path)!r} holds no DICOM series; expected its slices there, and not in a folder below"
        )
    return found


def _unreadable(paths: Sequence[Path]) -> str:
    """Name the files that GDCM stumbles over, which it does not do itself: it looks at each alone in a folder."""
    names = []
    for path in paths:
        with tempfile.TemporaryDirectory() as alone:
            try:
                shutil.copyfile(path, Path(alone, path.name))
                sitk.ImageSeriesReader.GetGDCMSeriesIDs(alone)
            except (OSError, RuntimeError):
                names.append(repr(path.name))
    return ", ".join(names[:4]) or "a file there"


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
    headers = [read_header(path) for path in found[uid]]
    order, affine = stack_slices(headers, f"series {uid}")
    series = Series(uid, tuple(found[uid][k] for k in order), tuple(headers[k] for k in order), affine)
    if series.gaps:
        warnings.warn(f"series {uid}: {series.gaps}", stacklevel=2)
    return series


def _check_unread(folder: Path, found: dict[str, tuple[Path, ...]], uid: str) -> None:
    """Refuse a file that may be a slice and is in no series.

    GDCM passes over files it cannot parse without a word, and no gap tells of one at an end of the volume, nor of
    every second one.
    """
    known = {path.name for files in found.values() for path in files}
    numbered = {_numberless(name) for name in known if _numberless(name) != name}
    for path in sorted(path for path in folder.iterdir() if path.is_file() and path.name not in known):
        if path.name.startswith(".") or path.name.upper() == "DICOMDIR":
            continue
        sign = _sign_of_a_slice(path, uid)
        if not sign and _numberless(path.name) in numbered and not _is_document(path, uid):
            sign = "is numbered like its slices"
        if sign:
            raise ValueError(
                f"series {uid}: the file {path.name!r} {sign} but cannot be read; expected every slice whole. It is "
                "truncated or broken: export or copy the series again, or move the file away if it is no slice"
            )


def _sign_of_a_slice(path: Path, uid: str) -> str:
    try:
        if not path.stat().st_size:
            return "is empty: it may belong to it"
        with path.open("rb") as file:
            is_dicom = file.read(132)[128:] == b"DICM"
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}). Mend its rights or move it away") from error
    if not is_dicom and path.suffix.lower() not in (".dcm", ".dicom", ".ima"):
        return ""
    if _is_document(path, uid):
        return ""
    return "belongs to it" if _series_of(path) == uid else "looks like a slice"


def _series_of(path: Path) -> str | None:
    try:
        with _silent():
            return str(dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID)
    except Exception:  # whatever a broken file makes pydicom raise
        return None


def _is_document(path: Path, uid: str) -> bool:
    """Whether a whole DICOM object of another series holds no image: contours, a report, a presentation state."""
    try:
        with _silent():
            header = dcmread(path, defer_size=1024, specific_tags=["SOPClassUID", "SeriesInstanceUID", "Rows"])
            kind = header.SOPClassUID
            image = "Image" in kind.name or "Rows" in header
            return header.SeriesInstanceUID != uid and kind.type == "SOP Class" and not image
    except Exception:  # as above
        return False


def _numberless(name: str) -> str:
    return re.sub(r"\d+", "#", name)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep pydicom's warnings to itself: they quote values, which may be a patient's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_header(path: Path) -> Dataset:
    """Geometry and identifiers of a slice, with its pixels' description checked against the pixels there are.

    Raises:
        ValueError: whatever is wrong with the file, by its name and without the value, which may be a patient's.
    """
    what = f"the file {path.name!r}"
    end = "It is truncated or broken: export or copy the series again"
    with _silent():
        try:
            header = dcmread(path, defer_size=1024, specific_tags=[*_HEADER, *_PIXELS, "PixelData"])
        except Exception as error:
            raise ValueError(
                f"{what}: expected a DICOM slice, got {type(error).__name__} from reading it. {end}"
            ) from None
        for keyword in (*_HEADER, *_PIXELS):
            try:
                header.get(keyword)  # pydicom parses a value when it is asked for
            except Exception as error:
                raise ValueError(
                    f"{what}: expected a valid {keyword}, got {type(error).__name__} from reading it. {end}"
                ) from None
        try:
            problem = _pixel_problem(header)
        except Exception as error:
            problem = f"expected a description of its pixels, got {type(error).__name__} from reading it"
    if problem:
        raise ValueError(f"{what}: {problem}. {end}")
    for keyword in (*_PIXELS, "PixelData"):
        if keyword in header:
            del header[keyword]
    return header


def _pixel_problem(header: Dataset) -> str:
    """A contradiction in the description of the pixels; nothing if all is well."""
    for keyword, neutral in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        value = header.get(keyword)
        try:
            number = neutral if value is None else float(value)
        except (TypeError, ValueError):  # several values, or text
            number = np.nan
        if not np.isfinite(number) or (keyword == "RescaleSlope" and number == 0):
            return f"expected a finite {keyword}{' other than 0' * (neutral == 1)}, got {number:g}"
    bits, sign = header.get("BitsAllocated"), header.get("PixelRepresentation")
    if bits not in (8, 16, 32, 64) or sign not in (0, 1):
        return f"expected BitsAllocated 8, 16, 32 or 64 and PixelRepresentation 0 or 1, got {bits} and {sign}"
    stored = header.get("BitsStored")
    if stored is not None and not 1 <= int(stored) <= bits:
        return f"expected BitsStored of 1 to {bits}, got {stored}"
    if "PixelData" not in header:
        return "expected pixels, got none"
    if header.file_meta.TransferSyntaxUID.is_encapsulated:
        return ""  # compressed: GDCM looks at it
    values = [int(header.get(keyword) or 0) for keyword in ("Rows", "Columns")]
    samples = int(header.get("SamplesPerPixel", 1) or 0) * int(header.get("NumberOfFrames") or 1)
    expected = values[0] * values[1] * samples * bits // 8
    found = getattr(header.get_item("PixelData", keep_deferred=True), "length", None)  # not read: only its length is
    if found is None or not 0 <= found - expected <= max(1, min(_PADDING, expected // 4)):
        return (
            f"expected {expected} bytes of pixels ({values[0]} × {values[1]} of {bits} bits, {samples} a pixel), "
            f"got {found}"
        )
    return ""


def _listing(found: dict[str, tuple[Path, ...]]) -> str:
    lines = []
    for uid, files in sorted(found.items()):
        try:
            with _silent():
                header = dcmread(files[0], stop_before_pixels=True, specific_tags=["Modality"])
            modality = header.get("Modality", "?")
        except Exception:  # a broken file is named when its series is chosen
            modality = "?"
        names = f" ({', '.join(path.name for path in files)})" if len(files) < 4 else ""
        lines.append(f"  {uid}  {modality}, {counted(len(files), 'file')}{names}")
    return "\n".join(lines)
