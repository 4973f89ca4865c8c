"""Notebooks run from nothing, and what they say holds; what is kept of them is small and clean."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
from written_pages import ROOT, anchors

FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])")
MINE = "train_on_your_images"
YOURS = "calibrate_your_model"


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("execute_notebooks", FOLDER / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _text(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if "text" in output)


def _row(text: str, name: str) -> list[float]:
    line = next(line for line in text.splitlines() if line.startswith(name))
    return [float(number) for number in NUMBER.findall(line.removeprefix(name))]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_run_from_nothing_improves_what_it_says(path: Path, tmp_path: Path) -> None:
    now = _script().executed(path, tmp_path)
    pictures = [sum("image/png" in output.get("data", {}) for output in cell.get("outputs", [])) for cell in now.cells]
    assert sum(pictures) >= 1
    _improves(now)


def _improves(notebook: Any) -> list[list[float]]:
    """Hold the corrected values of the table below those as trained, and overlap; return those the text says rise."""
    cells = [cell for cell in notebook.cells if "varies" not in cell.metadata.get("tags", [])]
    texts = [_text(cell) for cell in cells if cell.cell_type == "code"]
    table = next(text for text in texts if "DSC" in text and "ECE" in text and "as trained" in text)
    rows = [re.split(r"\s{2,}", line)[0] for line in table.splitlines() if line.startswith(("ECE", "NLL", "error"))]
    told = "".join(cell.source for cell in cells if cell.cell_type == "markdown")
    risen = {name for name in rows if f"*{name}*" in told}
    assert len(set(rows) - risen) >= 3
    pairs = {name: _row(table, name) for name in rows}
    for name, (trained, corrected) in pairs.items():
        assert name in risen or corrected < 0.9 * trained
    trained, corrected = _row(table, "DSC")
    assert corrected == pytest.approx(trained, abs=0.003)
    return [pairs[name] for name in risen]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_kept_figures_tell_of_an_improvement(path: Path) -> None:
    for trained, corrected in _improves(nbformat.read(path, as_version=4)):
        assert corrected > trained


def test_stored_maps_give_the_figures_of_the_network() -> None:
    """The two ways of the notebook, over the network and over its stored maps, come to the same."""
    cells = [cell for cell in nbformat.read(FOLDER / f"{YOURS}.ipynb", as_version=4).cells if cell.cell_type == "code"]
    texts = [_text(cell) for cell in cells]
    table = next(text for text in texts if "as trained" in text)
    corrected = next(text for text in texts if "before -> after" in text)
    names = {"nll_all_macro": "NLL, everywhere", "ece_all_15bins_macro": "ECE, everywhere", "mean_dice": "DSC"}
    for stored, name in names.items():
        line = next(line for line in corrected.splitlines() if line.strip().startswith(stored) and "->" in line)
        figures = [float(number) for number in re.findall(r"\d\.\d+", line)]
        assert figures == pytest.approx(_row(table, name), abs=2e-4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept_is_small_and_of_one_run(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < 250_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr"
            picture = output.get("data", {}).get("image/png")
            if picture is not None:
                assert len(base64.b64decode(picture)) < 60_000
                assert cell.metadata["alt"]
    printed = "".join(_text(cell) for cell in cells)
    assert not re.search(r"(^|[\s'\"])/(tmp|home|root|Users|private|var|work)\b|[Ww]arning|Traceback", printed)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_notebooks_lead_to_files_and_headings(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    for link in links:
        name, _, anchor = link.partition("#")
        assert (FOLDER / name).is_file()
        assert not anchor or anchor in anchors(FOLDER / name)
