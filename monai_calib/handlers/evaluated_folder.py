"""An evaluation's folder, whole or absent."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

from ignite.engine import Engine, Events

from monai_calib.files import replace_folder
from monai_calib.handlers.ranks import barrier, rank
from monai_calib.lock import FolderLock

__all__ = ["EvaluatedFolder"]


class EvaluatedFolder:
    """Lets the other handlers write into a hidden folder, and gives it its name when the run has ended well.

    A reader sees the former evaluation, or the new one, or none: never half of one, and never files of two. What a
    killed evaluation left is removed by the next. The first rank holds the folder from the start of the run to its end;
    a second process is refused with a line that names it.

    List it **last**, and give the others :attr:`partial` as their ``output_dir``.

    Args:
        folder: where the evaluation ends up, ``run_dir/eval``.

    Raises: :class:`~monai_calib.lock.FolderInUseError` when the run starts and another process evaluates into it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as run:
        ...     folder = EvaluatedFolder(f"{run}/eval")
        ...     engine = Engine(lambda engine, batch: folder.partial.joinpath("a.txt").write_text("a"))
        ...     folder.attach(engine)
        ...     _ = engine.run([0])
        ...     [file.name for file in Path(run, "eval").iterdir()]
        ['a.txt']
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.partial = self.folder.with_name(f".{self.folder.name}.partial")
        self._held = ExitStack()
        self._writing = False

    def attach(self, engine: Engine) -> None:
        """Begin when ``engine`` starts, and put the folder in its place when it has completed."""
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.COMPLETED, self._commit)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._give_up)

    def _begin(self, engine: Engine) -> None:
        if rank() == 0:
            self._held.enter_context(
                FolderLock(self.folder.parent, f"evaluating into {self.folder.name}", f".{self.folder.name}.lock")
            )
            self._writing = True  # from here on: what another process writes is not touched
            shutil.rmtree(self.partial, ignore_errors=True)
            self.partial.mkdir(parents=True)
        barrier()

    def _commit(self, engine: Engine) -> None:
        barrier()
        if self._writing:
            with self._held:
                replace_folder(self.partial, self.folder)
                self._writing = False

    def _give_up(self, engine: Engine, error: BaseException) -> None:
        if self._writing:
            shutil.rmtree(self.partial, ignore_errors=True)
            self._writing = False
            self._held.close()
        raise error
