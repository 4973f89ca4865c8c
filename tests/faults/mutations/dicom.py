"""DICOM: values, texts, lengths, the header."""

from __future__ import annotations

import io
import struct
from random import Random
from typing import Any

from .generic import Mutation, random_bytes, random_bytes_at_the_start

_DICOM_VALUES: dict[str, tuple[Any, ...]] = {
    "Rows": (0, 1, 65535),
    "Columns": (0, 1, 65535),
    "BitsAllocated": (0, 1, 8, 12, 32, 64),
    "BitsStored": (0, 8, 99),
    "HighBit": (0, 7, 99),
    "PixelRepresentation": (0, 2),
    "SamplesPerPixel": (0, 2, 3),
    "PhotometricInterpretation": ("MONOCHROME1", "RGB", "PALETTE COLOR", ""),
    "PixelSpacing": (["1"], ["-1", "1"], ["1e-9", "1e-9"], ["0", "0"], ["1", "1", "1"], None, ["50", "1"]),
    "SliceThickness": ("0", "-1", None),
    "RescaleSlope": ("0", "-1", None, "1e30"),
    "RescaleIntercept": (None, "1e30"),
    "ImagePositionPatient": (["0", "0", "0"], ["0", "0"], None, ["1e30", "0", "0"], ["5", "6", "1000"]),
    "ImageOrientationPatient": (["0"] * 6, ["1", "0", "0"], None, ["1", "0", "0", "1", "0", "0"], ["1"] * 6),
    "InstanceNumber": (0, -1, None, 999, 3),
    "SeriesInstanceUID": ("1.2.3", "", None),
    "SOPInstanceUID": ("1.2.3", None),
    "SOPClassUID": ("1.2.840.10008.5.1.4.1.1.481.3", None),
    "FrameOfReferenceUID": ("1.2.3", None),
    "Modality": ("CT", "SEG", None),
    "NumberOfFrames": (0, 2, 99),
    "PixelData": (b"", b"\0" * 10, None),
    "WindowCenter": ("abc",),
}


def dicom_value(content: bytes, random: Random) -> bytes:
    from pydicom import config, dcmread

    image = dcmread(io.BytesIO(content))
    config.settings.writing_validation_mode = config.IGNORE
    keyword = random.choice(sorted(_DICOM_VALUES))
    value = random.choice(_DICOM_VALUES[keyword])
    if keyword in image:
        del image[keyword]
    held = io.BytesIO()
    try:
        if value is not None:
            setattr(image, keyword, value)
        image.save_as(held)
    except Exception:  # pydicom refuses to write some lies
        return random_bytes_at_the_start(content, random)
    return held.getvalue()


def dicom_text(content: bytes, random: Random) -> bytes:
    """A number that is none, of the length that was there."""
    tags = {b"\x28\x00\x53\x10DS": 0, b"\x28\x00\x30\x00DS": 0, b"\x20\x00\x32\x00DS": 0, b"\x20\x00\x37\x00DS": 0}
    there = [tag for tag in tags if tag in content]
    if not there:
        return random_bytes(content, random)
    start = content.index(random.choice(there)) + 6
    length = int.from_bytes(content[start : start + 2], "little")
    text = random.choice([b"abc", b"nan", b"inf", b"1\\2", b"\\\\", b"1e999", b"\xff\xfe"])[:length].ljust(length)
    return content[: start + 2] + text + content[start + 2 + length :]


def dicom_length(content: bytes, random: Random) -> bytes:
    place = content.index(b"\xe0\x7f\x10\x00")
    changed = bytearray(content)
    struct.pack_into("<I", changed, place + 8, random.choice([0, 1, 2**31, 2**32 - 1, 10]))
    return bytes(changed)


def dicom_syntax(content: bytes, random: Random) -> bytes:
    old = b"1.2.840.10008.1.2.1\0"
    new = random.choice(
        [b"1.2.840.10008.1.2\0\0\0", b"1.2.840.10008.1.2.2\0", b"1.2.840.10008.1.2.5\0", b"9.9.999.9999999999\0\0"]
    )
    return content.replace(old, new, 1)


def dicom_header(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    end = content.index(b"\xe0\x7f\x10\x00")
    for _ in range(random.randint(1, 15)):
        changed[random.randrange(end)] = random.randrange(256)
    return bytes(changed)


DICOM: tuple[Mutation, ...] = (
    dicom_value, dicom_value, dicom_value, dicom_value, dicom_text, dicom_text, dicom_length, dicom_syntax,
    dicom_header, dicom_header,
)  # fmt: skip
