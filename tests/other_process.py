"""Another process that holds the lock of a folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(folder: Path, name: str = ".lock", doing: str = "its work") -> Iterator[int]:
    """Yield the process that holds the lock; it is killed in the end."""
    code = (
        "import time; from monai_calib.lock import FolderLock\n"
        f"with FolderLock({str(folder)!r}, {doing!r}, {name!r}): print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            yield other.pid
        finally:
            other.kill()
