"""Small DICOM series of a known volume: any orientation, any order of slices, any rescaling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# What a segmentation has to carry, what it must not, and what nothing but a DICOM file may hold.
IDENTIFIERS = {"PatientName": "Quux^Jane", "PatientID": "ID-4711", "PatientBirthDate": "19010203"}
SECRETS = {
    "PatientAddress": "Secret Lane 5",
    "PatientComments": "secret comment",
    "OtherPatientIDs": "secret id",
    "InstitutionName": "Secret Hospital",
    "OperatorsName": "Secret^Operator",
    "PatientTelephoneNumbers": "secret phone",
}


def identifiers_in(text: str) -> list[str]:
    """What a text tells of the patient."""
    return [value for value in (*IDENTIFIERS.values(), *SECRETS.values(), "ID-OTHER") if value in text]


def rotation(axis: int, degrees: float) -> np.ndarray:
    """Rotation about one axis, ``(3, 3)``."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.eye(3)
    a, b = [k for k in range(3) if k != axis]
    turn[[a, a, b, b], [a, b, a, b]] = c, -s, s, c
    return turn


def ras_affine(directions: np.ndarray, spacing: tuple[float, ...], origin: tuple[float, ...]) -> np.ndarray:
    """From voxel (column, row, slice) to RAS: directions (columns of a matrix) are given in LPS, as in DICOM."""
    lps = np.eye(4)
    lps[:3, :3] = directions * np.array(spacing)
    lps[:3, 3] = origin
    return LPS_TO_RAS @ lps


def write_series(
    folder: Path,
    stored: np.ndarray,
    affine: np.ndarray,
    *,
    slopes: np.ndarray | None = None,
    intercept: float = 0.0,
    uid: str | None = None,
    names: list[str] | None = None,
    change: Callable[[Dataset, int], None] | None = None,
) -> str:
    """Write ``stored`` (columns, rows, slices) as one file a slice and return the Series Instance UID.

    ``names`` gives the files' names and so the order in which the folder lists them; ``change`` edits slice ``k``
    before it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    series, study, frame = uid or generate_uid(), generate_uid(), generate_uid()
    for k in range(stored.shape[2]):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = MRImageStorage
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.SeriesInstanceUID, image.StudyInstanceUID, image.FrameOfReferenceUID = series, study, frame
        image.Modality, image.SeriesNumber, image.InstanceNumber = "MR", 7, k + 1
        image.StudyDate, image.StudyTime, image.AccessionNumber, image.StudyID = "20200101", "120000", "A1", "S1"
        for keyword, value in {**IDENTIFIERS, **SECRETS}.items():
            setattr(image, keyword, value)
        image.PatientSex, image.ReferringPhysicianName = "O", ""
        image.Columns, image.Rows = stored.shape[:2]
        image.ImagePositionPatient = [f"{x:.10g}"[:16] for x in (lps @ [0, 0, k, 1])[:3]]
        image.ImageOrientationPatient = [f"{x:.9f}" for x in (lps[:3, :2] / spacing[:2]).T.ravel()]
        image.PixelSpacing = [float(spacing[1]), float(spacing[0])]  # between rows first
        image.SliceThickness = float(spacing[2])
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated = image.BitsStored = 16
        image.HighBit, image.PixelRepresentation = 15, 1
        if slopes is not None:
            image.RescaleSlope, image.RescaleIntercept = f"{slopes[k]:.10g}", f"{intercept:.10g}"
        image.PixelData = np.ascontiguousarray(stored[:, :, k].T.astype("<i2")).tobytes()
        if change is not None:
            change(image, k)
        name = names[k] if names else f"{k:03d}.dcm"
        image.save_as(folder / name, enforce_file_format=True)
    return series
