"""Find the Python that an environment is to be made of."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

__all__ = ["interpreter"]


def interpreter(version: str) -> str:
    """Find the Python of a version: this one, pyenv's, or one on PATH.

    In this order, since what pyenv puts on PATH may only say that a version has to be chosen.
    """
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    pyenv = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}.*/bin/python"))
    found = str(pyenv[-1]) if pyenv else shutil.which(f"python{version}")
    if found is None:
        raise RuntimeError(f"Python {version}: not found on PATH, nor in pyenv. Install it.")
    return found
