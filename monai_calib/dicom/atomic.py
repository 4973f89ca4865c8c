"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["unfinished"]


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """A path beside ``target`` to write to; it takes the target's place only if the block ends well.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with unfinished(Path(folder) / "a.txt") as path:
        ...         _ = path.write_text("whole")
        ...     sorted(os.listdir(folder))
        ['a.txt']
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # The folder keeps the target's own ending, by which writers choose the format.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unfinished-") as folder:
        temporary = Path(folder) / target.name
        yield temporary
        os.replace(temporary, target)
