"""A folder that one process at a time works in."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import filelock

__all__ = ["FolderInUseError", "FolderLock"]

_held: dict[Path, int] = {}
"""Locks of this process by their file, and how often each was taken: a step of a locked work may lock again."""


class FolderInUseError(ValueError):
    """Another process works in the folder."""


class FolderLock:
    """Hold a folder until the block, or the process, ends; the system lets go even after ``kill -9``.

    The lock guards one activity: a benchmark locks its own folder, and each training below it the folder of its run.
    Of several ranks the first alone takes it. The lock's hidden file stays behind, unlocked and harmless, unless it is
    asked to go.

    Args:
        folder: made when missing.
        doing: what is done there, in a word or two; errors and the lock's file say it.
        name: the lock's file.
        wait: wait for another holder to end, instead of refusing.
        leave: leave the lock's file behind; ``False`` where it lies in a folder that is the user's.

    Raises:
        FolderInUseError: another process holds the lock; one line that names the folder and the holder.
        OSError: the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, FolderLock(Path(folder), "training"):
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['.lock', '.lock.holder']
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        doing: str = "work",
        name: str = ".lock",
        wait: bool = False,
        leave: bool = True,
    ):
        self.folder = Path(folder)
        self.path = self.folder.absolute() / name
        self.doing = doing
        self.wait = wait
        self.leave = leave
        self._lock: filelock.BaseFileLock | None = None

    def __enter__(self) -> FolderLock:
        if self.path in _held:
            _held[self.path] += 1
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.path, timeout=-1 if self.wait else 0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise FolderInUseError(
                f"{self._what()} is in use by {self._holder()}. Wait for it to end, or end it."
            ) from None
        self._lock = lock
        _held[self.path] = 1
        self._note().write_text(f"process {os.getpid()} on {socket.gethostname()} ({self.doing})\n", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _held[self.path] -= 1
        if not _held[self.path]:
            del _held[self.path]
            if self._lock is not None:
                self._note().unlink(missing_ok=True)
                if not self.leave:
                    with suppress(OSError):  # elsewhere than on POSIX a file that is open stays
                        self.path.unlink()
                self._lock.release()

    def _what(self) -> Path:
        """The folder, or what the lock's name says is meant in it: ``.eval.lock`` is that of ``eval``."""
        meant = self.path.name.removeprefix(".").removesuffix("lock").removesuffix(".")
        return self.folder / meant if (self.folder / meant).exists() else self.folder

    def _note(self) -> Path:
        """Who holds the lock, in a file of its own: on some systems a locked file cannot be read."""
        return self.path.with_name(f"{self.path.name}.holder")

    def _holder(self) -> str:
        try:
            return self._note().read_text(encoding="utf-8").strip() or "another process"
        except OSError:
            return "another process"
