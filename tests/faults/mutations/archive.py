"""Archives: members that lead outside, links, bombs."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from random import Random

from .generic import Mutation


def _members(content: bytes) -> list[tuple[str, bytes]]:
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            return [(name, packed.read(name)) for name in packed.namelist() if not name.endswith("/")]
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar if member.isfile()]  # type: ignore[union-attr]


_WAYS_OUT = ("../outside", "/tmp/monai_calib_outside", "a/../../outside", "..\\outside", "C:\\outside", "a/./../../x")


def archive_of(content: bytes, random: Random) -> bytes:
    """A tar archive in which one member is what no download should hold."""
    held = io.BytesIO()
    members = _members(content)
    kind = random.choice(
        ("out", "symlink", "link", "device", "fifo", "twice", "sparse", "bomb", "long", "folder", "pax")
    )
    with tarfile.open(fileobj=held, mode="w:gz", compresslevel=1) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        name = members[random.randrange(len(members))][0]
        info = tarfile.TarInfo({"out": random.choice(_WAYS_OUT), "long": "a" * 5000}.get(kind, f"{name}.more"))
        if kind in ("symlink", "link"):
            info.type = tarfile.SYMTYPE if kind == "symlink" else tarfile.LNKTYPE
            info.linkname = random.choice(["/etc/passwd", "../../outside", name])
        elif kind in ("device", "fifo"):
            info.type = tarfile.CHRTYPE if kind == "device" else tarfile.FIFOTYPE
        elif kind in ("twice", "folder"):
            info.name = name
            info.type = tarfile.REGTYPE if kind == "twice" else tarfile.DIRTYPE
        elif kind == "bomb":
            info.size = 80_000_000
        elif kind == "pax":
            info.pax_headers = {"path": random.choice(_WAYS_OUT), "size": "99999999999"}
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    return held.getvalue()


def zip_of(content: bytes, random: Random) -> bytes:
    held = io.BytesIO()
    members = _members(content)
    kind = random.choice(("out", "link", "twice", "bomb", "encrypted", "claim", "long"))
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for name, data in members:
            packed.writestr(name, data)
        name = members[0][0]
        info = zipfile.ZipInfo(
            {"out": random.choice(_WAYS_OUT), "twice": name, "long": "a" * 300}.get(kind, f"{name}.m")
        )
        info.compress_type = zipfile.ZIP_DEFLATED
        if kind == "link":
            info.external_attr = 0o120777 << 16
        packed.writestr(info, bytes(80_000_000) if kind == "bomb" else b"/etc/passwd")
    changed = bytearray(held.getvalue())
    if kind in ("encrypted", "claim"):
        place = changed.rindex(b"PK\x01\x02")
        if kind == "encrypted":
            changed[place + 8] |= 1
        else:
            struct.pack_into("<I", changed, place + 24, 2**31)
    return bytes(changed)


ARCHIVE: tuple[Mutation, ...] = (archive_of, archive_of, archive_of, zip_of, zip_of)
