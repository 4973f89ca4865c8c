"""Run the notebooks of this folder in empty folders, and keep their outputs: ``make notebooks``.

``python docs/notebooks/execute.py [NOTEBOOK ...]``. Without a name, all. What lands in the files holds no path of the
machine that ran them: they run in a folder of their own, whose path is cut off. The error stream, where libraries
warn and progress is drawn, is left out.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

HERE = Path(__file__).resolve().parent
NOTEBOOKS = sorted(HERE.glob("*.ipynb"))


def _environment() -> dict[str, str]:
    """Return that of this process: one thread, this Python and this package first, warnings of libraries off."""
    here = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}  # a test's draws nothing
    python, package = str(Path(sys.executable).parent), str(HERE.parents[1])
    for name, first in (("PATH", python), ("PYTHONPATH", package)):
        here[name] = os.pathsep.join(filter(None, [first, here.get(name)]))
    return here | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def executed(path: Path, folder: Path, timeout: float = 3600) -> Any:
    """Return the notebook of ``path`` with the outputs of a run in ``folder``.

    Raises: ``nbclient.exceptions.CellExecutionError`` with the cell and its error.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as sockets:  # no port is opened, nothing written at home
        kernel = Config(AsyncKernelManager={"transport": "ipc", "connection_file": f"{sockets}/kernel.json"})
        where = {"metadata": {"path": str(folder)}}
        client = NotebookClient(notebook, timeout=timeout, resources=where, coalesce_streams=True, config=kernel)
        client.execute(env=_environment() | {"IPYTHONDIR": sockets})
    return clean(notebook, folder)


def clean(notebook: Any, folder: Path) -> Any:
    """Leave out what differs from run to run: times of cells, the kernel's version, the folder, the error stream."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            if "text" in output:
                output.text = output.text.replace(f"{folder.resolve()}/", "")
            for kind, value in output.get("data", {}).items():
                if kind.startswith("text/"):
                    output.data[kind] = value.replace(f"{folder.resolve()}/", "")
    return notebook


def main(names: list[str]) -> None:
    for path in [Path(name) for name in names] or NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(path, Path(folder))
        nbformat.write(notebook, path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
