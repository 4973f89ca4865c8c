"""Find the Python that an environment is to be made of."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

__all__ = ["interpreter"]


def interpreter(version: str) -> str:
    """The Python of a version: this one, one on PATH, or pyenv's."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    pyenv = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}.*/bin/python"))
    found = shutil.which(f"python{version}") or (str(pyenv[-1]) if pyenv else None)
    if found is None:
        raise RuntimeError(f"Python {version}: not found on PATH, nor in pyenv. Install it.")
    return found
