"""Open a download, be it a folder or an archive, without trusting what the archive holds."""

from __future__ import annotations

import errno
import shutil
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from ..files import full_disk_named
from .dataset import SourceError

__all__ = ["find_root", "is_stray", "open_source", "unpack", "visible"]

MOST_EXPANDED = 100
"""Times its packed size that an archive may unpack to; label maps of mostly background come to some thirty."""
SMALL = 50_000_000
"""Bytes that any archive may unpack to."""


def is_stray(path: Path | PurePosixPath) -> bool:
    """Whether a file is none of the data set's: hidden (``._x``, ``.DS_Store``) or in a ``__MACOSX`` folder."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def visible(folder: Path, pattern: str) -> list[Path]:
    """The files and folders that match a glob pattern, sorted, without stray hidden ones."""
    return sorted(path for path in folder.glob(pattern) if not is_stray(path.relative_to(folder)))


def _safe_name(name: str, archive: Path) -> PurePosixPath:
    """The member's path, refused if it could lead out of the folder it is unpacked in."""
    path = PurePosixPath(name)
    windows = PureWindowsPath(name)
    if path.is_absolute() or windows.drive or windows.root or ".." in path.parts or ".." in windows.parts:
        raise SourceError(
            f"{archive}: the archive's member {name!r} would be written outside its folder; nothing was unpacked. "
            "This is no official archive: download it again from its official place."
        )
    return path


def _no_file(name: str, archive: Path) -> SourceError:
    return SourceError(
        f"{archive}: the archive's member {name!r} is a link or a device, where only files and folders are expected; "
        "nothing was unpacked. Download it again from its official place."
    )


def _write(source: IO[bytes] | None, target: Path, archive: Path) -> None:
    if source is None:
        raise SourceError(f"{archive}: cannot read the member {target.name}; download the archive again.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, target.open("xb") as output:
        shutil.copyfileobj(source, output, 1 << 20)


def _check_size(sizes: Iterable[int], archive: Path, folder: Path) -> None:
    """Refuse what would fill the disk, before anything is written."""
    unpacked, packed = sum(sizes), archive.stat().st_size
    free = shutil.disk_usage(folder).free
    if unpacked > MOST_EXPANDED * packed + SMALL:
        raise SourceError(
            f"{archive}: {packed / 1e6:.1f} MB would unpack to {unpacked / 1e6:.0f} MB; nothing was unpacked. This is "
            "no official archive: download it again from its official place."
        )
    if unpacked > free:
        raise SourceError(
            f"{archive}: needs {unpacked / 1e9:.1f} GB unpacked, and {free / 1e9:.1f} GB are free beside {folder}; "
            "nothing was unpacked. Make room, or unpack it elsewhere and give the folder."
        )


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        members = [(member, _safe_name(member.name, archive)) for member in tar.getmembers()]
        for member, _ in members:
            if not (member.isfile() or member.isdir()):
                raise _no_file(member.name, archive)
        _check_size((member.size for member, _ in members), archive, folder)
        for member, path in members:
            if member.isfile() and not is_stray(path):
                _write(tar.extractfile(member), folder / path, archive)


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = [(member, _safe_name(member.filename, archive)) for member in packed.infolist()]
        for member, _ in members:
            kind = (member.external_attr >> 16) & 0o170000
            if kind not in (0, 0o100000, 0o040000):
                raise _no_file(member.filename, archive)
        _check_size((member.file_size for member, _ in members), archive, folder)
        for member, path in members:
            if not member.is_dir() and not is_stray(path):
                _write(packed.open(member), folder / path, archive)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar (also compressed) or zip archive into an empty folder, leaving stray hidden files out.

    All members are looked at before the first is written: paths that lead elsewhere, links and devices are refused.

    Raises: :class:`SourceError` naming the archive and the member, also on a damaged or half-downloaded archive;
        ``OSError`` if the disk is full or refuses to be written to.
    """
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, folder)
        elif tarfile.is_tarfile(archive):
            _unpack_tar(archive, folder)
        else:
            raise SourceError(f"{archive}: expected a folder, a tar or a zip archive; the file is neither.")
    except FileExistsError as error:
        raise SourceError(f"{archive}: holds {Path(error.filename).name} twice; download it again.") from error
    except SourceError:
        raise
    except Exception as error:  # tarfile, zipfile, zlib, lzma raise many kinds
        if isinstance(error, OSError) and error.errno not in (None, errno.ENAMETOOLONG):
            raise  # the machine's trouble, such as a full disk, and not the archive's
        raise SourceError(
            f"{archive}: the archive is damaged or only partly downloaded ({str(error)[:200]}). Download it again."
        ) from error


@contextmanager
def open_source(source: Path, workplace: Path) -> Iterator[Path]:
    """The download as a folder: the folder itself, or an archive unpacked in ``workplace``, which is removed after use.

    What a killed run left in ``workplace`` is removed first: nothing tells how far it had come.

    Raises: :class:`SourceError` if there is nothing at ``source``, or the archive is not safe or not whole.
    """
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise SourceError(f"{source}: no such folder or archive. Give the official download, unpacked or as it came.")
    shutil.rmtree(workplace, ignore_errors=True)
    workplace.mkdir(parents=True)
    try:
        with full_disk_named(workplace):
            unpack(source, workplace)
        yield workplace
    except SourceError as error:  # of a file in it: the folder is about to go
        told = str(error).replace(str(workplace), source.name)
        raise error if str(source) in told else SourceError(f"{source}: {told}") from error
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def find_root(folder: Path, names: tuple[str, ...], layout: str, depth: int = 3) -> Path:
    """The folder that holds all of ``names`` (each a glob pattern), at most ``depth`` folders down.

    Raises: :class:`SourceError` that says what was expected and what is there, or that there are several.
    """
    level = [folder]
    for _ in range(depth + 1):
        found = [place for place in level if all(visible(place, name) for name in names)]
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(map(str, found[:4]))
            raise SourceError(f"{folder}: holds the data set {len(found)} times: {listed}. Give the one you mean.")
        level = [sub for place in level for sub in visible(place, "*") if sub.is_dir()]
    there = [path.name for path in visible(folder, "*")]
    shown = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
    raise SourceError(
        f"{folder}: does not look like the official download.\n  expected: {' and '.join(names)}, as in {layout}\n"
        f"  found: {shown or 'nothing'}"
    )
