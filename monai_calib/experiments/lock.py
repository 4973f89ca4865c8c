"""A folder that one process at a time works in."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType

__all__ = ["FolderInUseError", "FolderLock"]


class FolderInUseError(ValueError):
    """Another process works in the folder."""


class FolderLock:
    """Holds ``folder/name`` locked until the block, or the process, ends; the system lets go even after ``kill -9``.

    Args:
        folder: made when missing.
        name: the lock's file, which says who holds it and stays behind, unlocked.
        wait: wait for another holder to end, instead of refusing.

    Raises:
        FolderInUseError: another process holds the lock; says which.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, FolderLock(Path(folder), ".lock"):
        ...     FolderLock(Path(folder), ".lock").__enter__()  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        monai_calib.experiments.lock.FolderInUseError: ... in use by process ...
    """

    def __init__(self, folder: Path, name: str, wait: bool = False) -> None:
        self.path = folder / name
        self.wait = wait
        self._descriptor = -1

    def __enter__(self) -> FolderLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if self.wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.pread(self._descriptor, 200, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise FolderInUseError(
                f"{self.path.parent} is in use by {holder or 'another process'}. Wait for it to end, or end it."
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
