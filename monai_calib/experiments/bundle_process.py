"""``python -m monai_calib.experiments.bundle_process FOLDER ARGUMENT...``: MONAI's bundle command, kept on a leash.

It ends when the process that started it ends, however that came about: its standard input is a pipe from there, and a
pipe closes with its writer. It has a process group of its own, since Ctrl-C in the terminal is for the comparison,
which then ends its runs. And it holds a lock on the run's folder, so that no second process writes there.

Where the disk is full it ends with :data:`NO_SPACE`, since its log, which would say so, lies on that disk.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import traceback
from contextlib import suppress

from monai_calib.files import is_full_disk
from monai_calib.lock import FolderLock

__all__ = ["NO_SPACE"]

NO_SPACE = 74
"""Exit status of a step that found no space left; EX_IOERR of sysexits.h."""


def _end_with_the_parent() -> None:
    while os.read(0, 4096):
        pass
    os.killpg(os.getpid(), signal.SIGKILL)  # with the workers that load data


def main() -> None:
    folder, *arguments = sys.argv[1:]
    if os.getpgid(0) != os.getpid():
        os.setpgid(0, 0)  # not a session: on Linux that would take its own share of the cores, whatever its niceness
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    with FolderLock(folder, "a run of a benchmark", name=".run.lock", wait=True):
        sys.argv = ["monai.bundle", *arguments]
        try:
            runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
        except Exception as error:
            if not _no_space(error):
                raise
            with suppress(OSError):
                traceback.print_exc()
            sys.exit(NO_SPACE)


def _no_space(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, is that of a full disk."""
    while error is not None:
        if is_full_disk(error):
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    main()
