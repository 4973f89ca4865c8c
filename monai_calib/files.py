"""Write files whole or not at all, and read JSON with errors that name the file."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .lock import FolderLock

__all__ = [
    "FileError",
    "atomic_folder",
    "atomic_path",
    "folder_lock",
    "full_disk_named",
    "is_full_disk",
    "read_json",
    "replace_folder",
    "write_json",
    "write_text",
]

_PARTIAL = ".partial"
_FORMER = ".former"


class FileError(ValueError):
    """A file that cannot be read or is not what was expected; says which file and what to do."""


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path of the same name in a hidden folder beside ``path``; what was written there takes its place when
    the block ends well.

    The file is flushed to the disk before it is renamed, so that after a power cut the old or the new one is there.
    It has its own name from the start, because PyTorch writes a file's name into the file, where MONAI Deploy looks for
    it. The hidden folder names host and process: what a killed process left is removed by the next writer.

    Args:
        path: the file to write; its folder is made.

    Raises: ``OSError`` with the path and, on a full disk, the free space.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_path(Path(folder, "a.txt")) as partial:
        ...         _ = partial.write_text("whole")
        ...     [file.name for file in Path(folder).iterdir()]
        ['a.txt']
    """
    target = Path(path)
    with full_disk_named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_dead(target)
        folder = _partial(target)
        folder.mkdir(exist_ok=True)  # a killed process of the same number may have left it: in a container all are 1
        partial = folder / target.name
        try:
            yield partial
            _flush(partial)
            os.replace(partial, target)
            _flush_folder(target.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new hidden folder beside ``path`` that takes its place when the block ends well.

    A former folder at ``path`` stays until then and is removed afterwards. If the block raises, nothing has changed.
    While the block lasts the folder is locked: of two processes that write it, the second is refused.
    A process killed between the two renames leaves the former folder under a hidden name; the next call puts it back
    or removes it.

    Raises: :class:`~monai_calib.lock.FolderInUseError`; ``OSError`` as :func:`atomic_path`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_folder(Path(folder, "eval")) as partial:
        ...         _ = Path(partial, "calibration.json").write_text("{}")
        ...     [str(file.relative_to(folder)) for file in sorted(Path(folder).rglob("*"))]
        ['eval', 'eval/calibration.json']
    """
    target = Path(path)
    with full_disk_named(target), folder_lock(target):
        _tidy_former(target)
        _remove_dead(target)
        partial = _partial(target)
        shutil.rmtree(partial, ignore_errors=True)  # of a killed process with this one's number
        partial.mkdir()
        try:
            yield partial
            replace_folder(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def folder_lock(path: str | os.PathLike[str], doing: str = "writing it") -> FolderLock:
    """The lock of a folder that is written as a whole: beside it, gone with its holder.

    :func:`atomic_folder` takes it; what works long before it writes takes it first.
    """
    target = Path(path).absolute()
    return FolderLock(target.parent, doing, f".{target.name}.lock", leave=False)


def replace_folder(partial: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Put a finished folder in the place of ``path``, beside which it lies: what :func:`atomic_folder` ends with."""
    source, target = Path(partial), Path(path)
    former = _former(target)
    with full_disk_named(target):
        _tidy_former(target)
        for file in source.rglob("*"):
            if file.is_file():
                _flush(file)
        if target.exists():
            os.replace(target, former)
        os.replace(source, target)
        _flush_folder(target.parent)
        shutil.rmtree(former, ignore_errors=True)


def _former(target: Path) -> Path:
    return target.with_name(f".{target.name}{_FORMER}")


def _tidy_former(target: Path) -> None:
    """Put back the folder left by a process killed between the two renames, or remove it if its successor is there."""
    former = _former(target)
    if former.exists():
        if target.exists():
            shutil.rmtree(former)
        else:
            os.replace(former, target)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file in one step."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], content: Any, indent: int | None = 1) -> None:
    """Write plain values as JSON in one step. Raises ``ValueError`` for NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(content, indent=indent, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(
    path: str | os.PathLike[str],
    expected_format: str | None = None,
    advice: str = "",
    error: Callable[[str], Exception] = FileError,
) -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        expected_format: what must stand under ``"format"``; the content is then a mapping. Any content by default.
        advice: last sentence of the errors: what to do.
        error: what to raise, made from the message.

    Raises: ``error`` naming the file: missing, unreadable, no UTF-8, no JSON, nested without end, another format.

    Example:
        >>> read_json("nowhere.json", advice="Make it.")
        Traceback (most recent call last):
        monai_calib.files.FileError: nowhere.json: no such file. Make it.
    """
    try:
        content = json.loads(Path(path).read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise error(f"{path}: no such file. {advice}".rstrip()) from None
    except (OSError, ValueError, RecursionError) as problem:
        reason = "nested too deeply" if isinstance(problem, RecursionError) else problem
        raise error(f"{path}: cannot be read as JSON ({reason}). {advice}".rstrip()) from problem
    if expected_format is None:
        return content
    found = content.get("format") if isinstance(content, dict) else None
    if found != expected_format:
        raise error(f"{path}: expected format {expected_format!r}, got {found!r}. {advice}".rstrip())
    return content


def _partial(target: Path) -> Path:
    """A name of this process's own."""
    return target.with_name(f".{socket.gethostname()}-{os.getpid()}{_PARTIAL}.{target.name}")


def _remove_dead(target: Path) -> None:
    """Remove what processes of this host that are no more left of ``target``."""
    host = socket.gethostname()
    for left in target.parent.glob(f".{host}-*{_PARTIAL}.{target.name}"):
        pid = left.name[len(host) + 2 :].partition(_PARTIAL)[0]
        if pid.isdigit() and not _alive(int(pid)):
            with suppress(OSError):
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _flush(file: Path) -> None:
    if stat.S_ISREG(os.lstat(file).st_mode):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":
        with suppress(OSError):  # some network file systems refuse it
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


@contextmanager
def full_disk_named(target: Path) -> Iterator[None]:
    """Put path and free space into the errors of a full disk, which Python and PyTorch raise without either."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) and "MB free" in str(error):
            raise  # named already, by a file in the folder
        free = _free(target.parent)
        if is_full_disk(error) or (isinstance(error, RuntimeError) and free < 1 << 20):  # torch.save hides the reason
            raise OSError(
                errno.ENOSPC, f"no space left ({free / 1e6:.1f} MB free), nothing was changed", str(target)
            ) from error
        raise


def is_full_disk(error: BaseException) -> bool:
    """Whether an error is the operating system's word for a disk, or a share of it, that is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _free(folder: Path) -> float:
    for there in (folder, *folder.absolute().parents):
        with suppress(OSError):
            return float(shutil.disk_usage(there).free)
    return float("inf")
