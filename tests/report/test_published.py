"""Published figures: shown with their source, apart from ours; files that do not fit are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monai_calib.report.published import read_published
from monai_calib.report.runs import RunError

TABLE: dict[str, Any] = {
    "title": "Hippocampus",
    "source": "A. Author, 2026",
    "columns": ["method", "DSC", "ACE"],
    "rows": [["Dice+CE", 0.799, 0.117], ["Dice+CE, hard", "0.83", None]],
}


def written(folder: Path, content: Any) -> Path:
    path = folder / "published.json"
    path.write_text(json.dumps(content))
    return path


def test_tables_come_back_as_they_stand(tmp_path: Path) -> None:
    (table,) = read_published(written(tmp_path, {"format": "monai_calib/published/1", "tables": [TABLE]}))
    assert (table.title, table.source, table.note) == ("Hippocampus", "A. Author, 2026", "")
    assert table.rows == (("Dice+CE", 0.799, 0.117), ("Dice+CE, hard", "0.83", None))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected format"),
        ({"format": "monai_calib/published/1"}, "key 'tables' is missing"),
        ({"format": "monai_calib/published/1", "tables": [{"title": "a"}]}, "key 'source' is missing"),
        ({"format": "monai_calib/published/1", "tables": [TABLE | {"rows": [["a", 1]]}]}, "expected 3 cells"),
        ({"format": "monai_calib/published/1", "tables": [TABLE | {"rows": [["a", 1, {}]]}]}, "of text or numbers"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(RunError, match=message) as caught:
        read_published(written(tmp_path, content))
    assert "published.json" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such file"):
        read_published(tmp_path / "none.json")
